// The way in.

import { useEffect, useState } from "preact/hooks";
import { call, type Me, me, sentence } from "./api";
import { html } from "./ui";

export function SignIn() {
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [provider, setProvider] = useState("");
  useEffect(() => {
    call<{ provider: string }>("/api/oidc").then(
      (found) => setProvider(found.provider),
      (error: unknown) => setProblem(sentence(error)),
    );
  }, []);
  const goToProvider = async () => {
    try {
      location.assign((await call<{ location: string }>("/api/oidc", { method: "POST" })).location);
    } catch (error) {
      setProblem(sentence(error));
    }
  };
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    setBusy(true);
    try {
      me.value = await call<Me>("/api/session", {
        method: "POST",
        body: JSON.stringify({ name: form.get("name"), password: form.get("password") }),
      });
      setProblem("");
    } catch (error) {
      setProblem(sentence(error));
      setBusy(false);
    }
  };
  return html`<main class="signin">
    <form onSubmit=${submit}>
      <h1><img src="/icon.svg" alt="" width="28" height="28" /> Harmony</h1>
      <label>Name <input name="name" autocomplete="username" autocapitalize="none" required maxlength="64" autofocus /></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required maxlength="1000" /></label>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <button type="submit" class="main" disabled=${isBusy}>${isBusy ? "Signing in…" : "Sign in"}</button>
      ${provider && html`<button type="button" onClick=${goToProvider}>Sign in with ${provider}</button>`}
    </form>
  </main>`;
}

// Rollouts: every class and how it stands, and one of them beside: its waves, its devices, and what may be wanted of it.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { call, includes, type Me, type RolloutAction, type RolloutLine, type RolloutPage, sentence } from "./api";
import { rollouts } from "./feed";
import { Glyph } from "./glyph";
import { useAnswer, useEscape } from "./hooks";
import { markOfRollout } from "./marks";
import { ago, html, left, span, use } from "./ui";

/** In the order in which they are counted. */
const STATES = ["Ready", "Progressing", "Waiting", "Unhealthy", "Away", "RolledBack", "NotReached"];
const WORDS: Record<string, string> = { NotReached: "not reached", RolledBack: "rolled back", none: "nothing rolled out" };
const TITLES: Record<string, string> = { pause: "Pause", resume: "Resume", abort: "Abort", promote: "Open the next wave", "promote --full": "Open all waves" };
const MEANS: Record<string, string> = {
  pause: "Nobody begins any more, and nobody goes back.",
  resume: "It goes on, and is judged anew.",
  abort: "Devices that have begun go back to the generation before. It cannot be resumed.",
  promote: "The next wave is opened at once, without waiting for this one.",
  "promote --full": "All devices begin at once.",
};

export function RolloutsView({ name, who }: { name: string | null; who: Me }) {
  const told = use(rollouts);
  return html`<main class=${name ? "body with-device" : "body"}>
    <section class="fleetview" aria-label="Rollouts">
      ${told?.problem && html`<p class="note">${told.problem}</p>`}
      ${told?.only_looks && !name && html`<p class="note">This server opens no waves: ${told.only_looks}.</p>`}
      <div class="tablebox" tabindex="0" role="region" aria-label="Table of rollouts">
        ${told && !told.lines.length && !told.problem
          ? html`<div class="nothing"><h2>No class yet</h2><p>Describe one in a folder, then: <code>harmony apply</code></p></div>`
          : html`<ul class="rollouts">${told?.lines.map((line) => html`<${Line} key=${line.name} line=${line} isOpen=${line.name === name} />`)}</ul>`}
      </div>
    </section>
    ${name && html`<${Rollout} key=${name} name=${name} who=${who} line=${told?.lines.find((each) => each.name === name)} />`}
  </main>`;
}

function Line({ line, isOpen }: { line: RolloutLine; isOpen: boolean }) {
  return html`<li class=${isOpen ? "open" : ""}>
    <p><a class="id" href=${`#/rollouts/${encodeURIComponent(line.name)}`}>${line.name}</a> <span class="quiet">${line.selector || "all devices"}</span></p>
    <p><${State} state=${line.state} />${line.generation !== null && html` <span class="quiet">generation ${line.generation}, wave ${line.wave} of ${line.waves}, ${ago(line.since)}</span>`}</p>
    <${Counts} counts=${line.counts} />
    ${(line.problem || line.why) && html`<p class="reason">${line.problem || line.why}</p>`}
  </li>`;
}

function State({ state }: { state: string }) {
  return html`<span class="state"><${Glyph} mark=${markOfRollout(state)} />${WORDS[state] ?? state.toLowerCase()}</span>`;
}

function Counts({ counts }: { counts: Record<string, number> }) {
  const there = STATES.filter((each) => counts[each]);
  return html`<ul class="counts">${there.map((each) => html`<li class="state"><${Glyph} mark=${markOfRollout(each)} /><b>${counts[each]}</b> ${WORDS[each] ?? each.toLowerCase()}</li>`)}</ul>`;
}

function Rollout({ name, who, line }: { name: string; who: Me; line: RolloutLine | undefined }) {
  const { answer: page, problem } = useAnswer<RolloutPage>(`/api/rollouts/${encodeURIComponent(name)}`, [line?.number]);
  useEscape(() => {
    location.hash = "/rollouts";
  }, []);
  return html`<section class="pane" aria-label=${`Rollout of ${name}`}>
    <header>
      <div class="title">
        <h2>${name}</h2>
        <a class="button plain" href="#/rollouts" aria-label="Close the rollout">✕</a>
      </div>
      ${page && html`<p role="status"><${State} state=${page.line.state} /> <span class="reason">${page.line.why}</span></p>`}
    </header>
    <div class="scroll" tabindex="0" role="region" aria-label="Details">
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      ${page?.line.problem && html`<p class="problem">${page.line.problem}</p>`}
      ${!page && !problem && html`<p class="quiet">Reading…</p>`}
      ${page && html`<${Details} page=${page} who=${who} />`}
    </div>
  </section>`;
}

/** The time by the clock of `harmony serve`, each second. */
function useNow(at: string): number {
  const [offset, setOffset] = useState(() => Date.parse(at) - Date.now());
  const [now, setNow] = useState(Date.now());
  useEffect(() => setOffset(Date.parse(at) - Date.now()), [at]);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now + offset;
}

function Details({ page, who }: { page: RolloutPage; who: Me }) {
  const now = useNow(page.at);
  const { line } = page;
  return html`
    <dl class="facts">
      <div><dt>Generation</dt><dd>${line.generation ?? "—"}</dd></div>
      <div><dt>Before</dt><dd>${page.supersedes || "nothing"}</dd></div>
      <div><dt>Gate</dt><dd title=${line.since ?? ""}>${ago(line.since)}</dd></div>
      <div><dt>Deadline</dt><dd>${page.deadline_s === null ? "—" : span(page.deadline_s)}</dd></div>
      <div class="wide"><dt>Devices</dt><dd>${line.selector || "all"}</dd></div>
    </dl>
    ${page.actions.length > 0 && html`<${Actions} page=${page} />`}
    ${includes(who.role, "operator") && page.only_looks && html`<p class="note">This server opens no waves: ${page.only_looks}.</p>`}
    <section aria-label="Waves">
      <h3>Waves</h3>
      <ol class="waves">${page.waves.map((wave, at) => html`<li class=${wave.state === "open" ? "now" : ""}>
        <p><b>${at + 1}</b> <span class="quiet">up to ${wave.upto}</span> <span class="status">${wave.state}</span>
          ${wave.soaks_until ? html` <span class="until">soaks ${left(wave.soaks_until, now) || "no more"}</span>` : wave.soak_s > 0 && html` <span class="quiet">soaks ${span(wave.soak_s)}</span>`}</p>
        <${Counts} counts=${wave.counts} />
      </li>`)}</ol>
    </section>
    <section aria-label="Devices">
      <h3>Devices</h3>
      ${page.devices.length === 0 && html`<p class="quiet">No device belongs to it.</p>`}
      <ul class="members">${page.devices.map((each) => html`<li key=${each.id}>
        <${State} state=${each.state} />
        <a class="id" href=${`#/device/${encodeURIComponent(each.id)}`}>${each.id}</a>
        <span class="quiet">wave ${each.wave}${each.slot ? `, slot ${each.slot}` : ""}</span>
        ${each.until && html`<span class="until">${left(each.until, now) || "0:00"} left</span>`}
        ${each.reason && html`<span class="reason">${each.reason}</span>`}
      </li>`)}</ul>
      ${page.devices_left > 0 && html`<p class="quiet">and ${page.devices_left} more</p>`}
    </section>`;
}

function Actions({ page }: { page: RolloutPage }) {
  const [asked, setAsked] = useState<RolloutAction | null>(null);
  const box = useRef<HTMLElement>(null);
  const close = () => {
    setAsked(null);
    box.current?.focus(); // or the keyboard would begin at the top of the page again
  };
  return html`<section aria-label="Actions" tabindex="-1" ref=${box}>
    <div class="orders">${page.actions.map((each) => html`<button type="button" aria-expanded=${asked?.verb === each.verb} onClick=${() => setAsked(asked?.verb === each.verb ? null : each)}>${TITLES[each.verb] ?? each.verb}…</button>`)}</div>
    ${asked && html`<${Ask} key=${asked.verb} name=${page.line.name} action=${asked} done=${close} />`}
  </section>`;
}

/** What an action means; then it is done, or the command is shown that does it. */
function Ask({ name, action, done }: { name: string; action: RolloutAction; done: () => void }) {
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState("");
  const [proposed, setProposed] = useState<RolloutAction | null>(null);
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => input.current?.focus(), []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    try {
      const answer = await call<{ is_done: boolean; action: RolloutAction }>(`/api/rollouts/${encodeURIComponent(name)}/orders`, {
        method: "POST",
        body: JSON.stringify({ verb: action.verb, reason }),
      });
      if (answer.is_done) return done();
      setProposed(answer.action);
      setProblem("");
    } catch (error) {
      setProblem(sentence(error));
    }
  };
  const title = TITLES[action.verb] ?? action.verb;
  return html`<form class="ask" onSubmit=${submit}>
    <p>${MEANS[action.verb]}</p>
    <label>Why, for the history <input ref=${input} value=${reason} maxlength="200" onInput=${(event: Event) => {
      setReason((event.target as HTMLInputElement).value);
      setProposed(null);
    }} /></label>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${proposed && html`<div class="note" role="status"><p>Not done here: ${proposed.why}. Run this at a terminal that has an operator's key:</p><pre class="command" tabindex="0">${proposed.command}</pre></div>`}
    <p class="orders">
      <button type="submit" class="main">${action.is_signed_here ? `${title} now` : "Show the command"}</button>
      <button type="button" onClick=${done}>Cancel</button>
    </p>
  </form>`;
}

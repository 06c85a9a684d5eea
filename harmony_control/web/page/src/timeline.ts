// What was done to a device, and by whose order: asked of the device itself.

import { useEffect, useState } from "preact/hooks";
import { call, type DeviceEvent, sentence } from "./api";
import { clock, html } from "./ui";

export function Timeline({ device, wakes }: { device: string; wakes: number }) {
  const [events, setEvents] = useState<DeviceEvent[] | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    const ending = new AbortController();
    call<DeviceEvent[]>(`/api/devices/${encodeURIComponent(device)}/events?lines=50`, { signal: ending.signal })
      .then((found) => {
        setEvents(found.reverse());
        setProblem("");
      })
      .catch((error: unknown) => {
        if (!ending.signal.aborted) setProblem(sentence(error));
      });
    return () => ending.abort();
  }, [device, wakes]);
  return html`<section aria-label="Timeline">
    <h3>Timeline</h3>
    ${problem && html`<p class="problem">${problem}</p>`}
    ${!events && !problem && html`<p class="quiet">Asking the device…</p>`}
    ${events?.length === 0 && html`<p class="quiet">Nothing was changed on it yet.</p>`}
    ${events && html`<ol class="timeline">${events.map((each) => html`<${Line} event=${each} />`)}</ol>`}
  </section>`;
}

/** One event, whatever the device takes for one. */
function Line({ event }: { event: DeviceEvent }) {
  const actions = Array.isArray(event.actions) ? event.actions.map(String).join(", ") : "";
  return html`<li>
    <time datetime=${text(event.at)} title=${text(event.at)}>${clock(text(event.at))}</time>
    <div>
      <strong>${text(event.score)}</strong> <span class="quiet">${text(event.why)}, generation ${text(event.generation)}</span>
      <div><code>${text(event.resource)}</code> ${actions}</div>
      ${typeof event.diff === "string" && event.diff && html`<details><summary>Difference</summary><pre class="diff">${event.diff.split("\n").map(
        (line) => html`<span class=${line.startsWith("+") ? "more" : line.startsWith("-") ? "less" : ""}>${`${line}\n`}</span>`,
      )}</pre></details>`}
    </div>
  </li>`;
}

function text(value: unknown): string {
  return value === null || value === undefined ? "" : String(value);
}

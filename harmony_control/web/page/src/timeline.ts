// What was done to a device, and by whose order: asked of the device itself.

import type { DeviceEvent } from "./api";
import { useAnswer } from "./hooks";
import { clock, Difference, html } from "./ui";

export function Timeline({ device, wakes }: { device: string; wakes: number }) {
  const path = `/api/devices/${encodeURIComponent(device)}/events?lines=50`;
  const { answer, problem } = useAnswer<DeviceEvent[]>(path, [wakes]);
  const events = answer && [...answer].reverse();
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
      ${typeof event.diff === "string" && event.diff && html`<details><summary>Difference</summary><${Difference} text=${event.diff} /></details>`}
    </div>
  </li>`;
}

function text(value: unknown): string {
  return value === null || value === undefined ? "" : String(value);
}

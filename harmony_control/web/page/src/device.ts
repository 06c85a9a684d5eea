// One device: how it stands, its Scores with what is wrong first, its conditions, and what was done to it.

import { useEffect, useState } from "preact/hooks";
import { call, type DevicePage, type Fact, includes, type LayerPart, me, type ScorePart, sentence } from "./api";
import { AXES, fleet, news } from "./fleet";
import { Glyph } from "./glyph";
import { useAnswer, useEscape } from "./hooks";
import { Logs } from "./logs";
import { markOf } from "./marks";
import { Timeline } from "./timeline";
import { ago, clock, Difference, html, isDifference, use } from "./ui";
import { go } from "./view";

const VITALS_MS = 60_000;
const STATUS: Record<string, string> = { FAILURE: "Error", RUNNING: "Updating", SUCCESS: "Well", NOOP: "Well" };
const STATUS_WORD: Record<string, string> = { FAILURE: "failed", RUNNING: "under way", SUCCESS: "changed", NOOP: "in order" };

export function DeviceView({ id, logs }: { id: string; logs: string | null }) {
  const [looked, setLooked] = useState(0);
  const told = use(news);
  const place = fleet.placeOf(id);
  const concerns = told.changed === null || (place !== undefined && told.changed.includes(place));
  const [wakes, setWakes] = useState(0);
  useEffect(() => {
    if (concerns) setWakes((before) => before + 1);
  }, [told]);

  useEffect(() => {
    // Vitals come with each heartbeat, of which nobody is told.
    const timer = setInterval(() => document.hidden || setLooked((before) => before + 1), VITALS_MS);
    return () => clearInterval(timer);
  }, [id]);
  const { answer: page, problem } = useAnswer<DevicePage>(`/api/devices/${encodeURIComponent(id)}`, [wakes, looked]);
  useEscape(() => go(logs === null ? null : id), [id, logs]);

  return html`
    <section class="pane" aria-label=${`Device ${id}`}>
      <header>
        <div class="title">
          <h2>${id}</h2>
          <button type="button" class="plain" aria-label="Close the device" onClick=${() => go(null)}>✕</button>
        </div>
        ${place !== undefined && html`<${Standing} place=${place} />`}
      </header>
      ${logs !== null
        ? html`<${Logs} device=${id} score=${logs} key=${`${id}/${logs}`} />`
        : html`<div class="scroll" tabindex="0" role="region" aria-label="Details">
            ${problem && html`<p class="problem" role="alert">${problem}</p>`}
            ${!page && !problem && html`<p class="quiet">Reading…</p>`}
            ${page && html`<${Details} page=${page} again=${() => setLooked(looked + 1)} wakes=${wakes} />`}
          </div>`}
    </section>`;
}

function Standing({ place }: { place: number }) {
  return html`
    <ul class="axes" aria-label="How it stands">
      ${AXES.map((axis) => html`<li><span class="quiet">${axis}</span><span class="state"><${Glyph} mark=${fleet.mark(place, axis)} />${fleet.state(place, axis)}</span></li>`)}
    </ul>
    ${fleet.reasons[place] && html`<p class="reason">${fleet.reasons[place]}</p>`}`;
}

function Details({ page, again, wakes }: { page: DevicePage; again: () => void; wakes: number }) {
  const { line } = page;
  const labels = Object.entries(line.labels);
  return html`
    ${page.problem && html`<p class="problem">${page.problem}</p>`}
    <dl class="facts">
      <div><dt>Last seen</dt><dd title=${page.presence_at ?? ""}>${ago(page.presence_at)}</dd></div>
      <div><dt>Generation</dt><dd>${generations(page)}</dd></div>
      <div><dt>Agent</dt><dd>${line.agent_version || "—"}</dd></div>
      <div><dt>Policy</dt><dd>${page.policy || "—"}</dd></div>
      ${labels.length > 0 && html`<div class="wide"><dt>Labels</dt><dd>${labels.map(([name, value]) => html`<span class="label">${name}=${value}</span>`)}</dd></div>`}
    </dl>
    ${page.removals_held > 0 && html`<p class="note">${page.removals_held} resources wait for approval to be removed. Approve them at a terminal: <code>harmony approve ${line.id}</code></p>`}
    <section aria-label="Scores">
      <h3>Scores <${Check} id=${line.id} again=${again} /></h3>
      ${page.scores.length === 0 && html`<p class="quiet">Nothing was pushed to it, or it has not said so yet.</p>`}
      ${page.scores.map((score) => html`<${Score} key=${score.id} device=${line.id} score=${score} again=${again} />`)}
    </section>
    ${page.layers.length > 0 && html`<${Layers} layers=${page.layers} />`}
    <section aria-label="Conditions">
      <h3>Conditions</h3>
      ${page.conditions.length === 0
        ? html`<p class="quiet">None told.</p>`
        : html`<table class="conditions"><tbody>${page.conditions.map(
            (each) => html`<tr>
              <th scope="row">${each.type}</th>
              <td>${each.status}</td>
              <td><strong>${each.reason}</strong> ${each.message}</td>
              <td class="when" title=${each.last_transition_time}>${ago(each.last_transition_time)}</td>
            </tr>`,
          )}</tbody></table>`}
    </section>
    <${Facts} title="Vitals" facts=${page.vitals} none="Not known: it is not heard, or its agent is older." />
    <${Facts} title="Inventory" facts=${page.inventory} problem=${page.inventory_problem} none="It has not told of what it consists." />
    <${Timeline} device=${line.id} wakes=${wakes} />`;
}

function Layers({ layers }: { layers: LayerPart[] }) {
  return html`<section aria-label="Classes">
    <h3>Classes</h3>
    <table class="conditions"><tbody>${layers.map(
      (each) => html`<tr>
        <th scope="row"><a href=${`#/rollouts/${encodeURIComponent(each.name)}`}>${each.name}</a></th>
        <td>generation ${each.generation || "—"}${each.wanted !== each.generation && ` of ${each.wanted}`}</td>
        <td><strong>${each.phase}</strong> ${[each.reason, each.message].filter(Boolean).join(": ")}</td>
        <td class="when" title=${each.since}>${ago(each.since)}</td>
      </tr>`,
    )}</tbody></table>
    <p class="quiet">What was pushed to the device itself comes before any class, and of classes the one with the higher priority. Of one Score: <code>harmony explain</code></p>
  </section>`;
}

function Facts({ title, facts, none, problem = "" }: { title: string; facts: Fact[]; none: string; problem?: string }) {
  return html`<section aria-label=${title}>
    <h3>${title}</h3>
    ${problem && html`<p class="problem">${problem}</p>`}
    ${facts.length === 0 && !problem && html`<p class="quiet">${none}</p>`}
    ${facts.length > 0 && html`<table class="conditions"><tbody>${facts.map((each) => html`<tr><th scope="row">${each.name}</th><td>${each.text}</td></tr>`)}</tbody></table>`}
  </section>`;
}

function generations(page: DevicePage): string {
  const { wanted_generation: wanted, observed_generation: observed } = page.line;
  if (observed === null) return wanted === null ? "—" : `— of ${wanted}`;
  return wanted === null || wanted === observed ? String(observed) : `${observed} of ${wanted}`;
}

function Score({ device, score, again }: { device: string; score: ScorePart; again: () => void }) {
  const isWrong = score.status === "FAILURE" || score.status === "RUNNING";
  const waiting = score.resources.filter((each) => !each.is_ready);
  const others = score.resources.filter((each) => each.is_ready);
  return html`<article class=${`score ${score.status.toLowerCase()}`}>
    <div class="head">
      <${Glyph} mark=${markOf(STATUS[score.status] ?? "Unknown")} />
      <h4>${score.id}</h4>
      <span class="quiet">${score.kind}${score.layer.startsWith("class:") && `, of the class ${score.layer.slice("class:".length)}`}</span>
      <span class="status">${STATUS_WORD[score.status] ?? score.status}</span>
      <span class="quiet when" title=${score.since}>${ago(score.since)}</span>
      <span class="actions">
        <a class="button" href=${`#/device/${encodeURIComponent(device)}/logs/${encodeURIComponent(score.id)}`}>Logs</a>
        <${Check} id=${device} score=${score.id} again=${again} />
      </span>
    </div>
    ${(isWrong || score.message) && html`<p class="outcome"><strong>${score.error_code ?? score.reason}</strong> ${score.message}</p>`}
    ${score.retry_at && html`<p class="quiet">Tried again at ${clock(score.retry_at)}; ${score.attempts} times so far.</p>`}
    ${score.progress && html`<p class="quiet"><progress aria-label="Progress" value=${score.progress.done} max=${score.progress.total ?? undefined}></progress> ${score.progress.done}${score.progress.total === null ? "" : ` of ${score.progress.total}`} ${score.progress.unit}</p>`}
    ${waiting.length > 0 && html`<ul class="resources">${waiting.map((each) => html`<${ResourceLine} resource=${each} mark="Degraded" />`)}</ul>`}
    ${score.last_drift && html`<div class="drift">
      <p>Drifted ${score.drift_count === 1 ? "once" : `${score.drift_count} times`}, last ${ago(score.last_drift.at)}: <code>${score.last_drift.resource}</code></p>
      ${isDifference(score.last_drift.before)
        ? html`<${Difference} text=${score.last_drift.before} />`
        : html`<p class="change"><del>${score.last_drift.before || "—"}</del> <ins>${score.last_drift.after || "—"}</ins></p>`}
    </div>`}
    ${others.length > 0 && html`<details><summary>${others.length} more ${others.length === 1 ? "resource" : "resources"}</summary>
      <ul class="resources">${others.map((each) => html`<${ResourceLine} resource=${each} mark="Well" />`)}</ul></details>`}
    <p class="quiet count">${score.resources_ready} of ${score.resources_total} resources ready</p>
  </article>`;
}

function ResourceLine({ resource, mark }: { resource: ScorePart["resources"][number]; mark: string }) {
  const { state, ready: _, ...rest } = resource.facts;
  const facts = Object.entries(rest).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length));
  return html`<li>
    <${Glyph} mark=${markOf(mark)} /><code>${resource.id}</code> <span>${String(state ?? "")}</span>${" "}
    ${facts.length > 0 && html`<span class="quiet">${facts.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`).join(", ")}</span>`}
  </li>`;
}

/** Have the device look at a Score, or at all of them, now: for operators. */
function Check({ id, score, again }: { id: string; score?: string; again: () => void }) {
  const [said, setSaid] = useState("");
  const who = use(me);
  if (!who || !includes(who.role, "operator")) return null;
  const ask = async () => {
    setSaid("asking…");
    try {
      const looked = await call<{ score: string; state: ScorePart | null }[]>(`/api/devices/${encodeURIComponent(id)}/reconcile`, {
        method: "POST",
        body: JSON.stringify(score === undefined ? {} : { score }),
      });
      const failed = looked.filter((each) => each.state?.status === "FAILURE").length;
      setSaid(failed ? `${failed} of ${looked.length} failed` : `checked ${looked.length}`);
      again();
    } catch (error) {
      setSaid(sentence(error));
    }
  };
  return html`<button type="button" disabled=${said === "asking…"} onClick=${ask} aria-label=${score === undefined ? "Check all now" : `Check now: ${score}`}>
      ${score === undefined ? "Check all now" : "Check now"}
    </button>${said && html`<span class="quiet said" role="status">${said}</span>`}`;
}

// The server's API, as the page uses it. What goes wrong is a `Problem` with the server's own sentence.

import { signal } from "@preact/signals-core";

export type Role = "viewer" | "operator" | "approver";

export interface Me {
  name: string;
  role: Role;
}

export interface FleetColumns {
  tag: string;
  fleet: string;
  states: Record<Axis, Record<string, string>>;
  ids: string[];
  device: string;
  update: string;
  workloads: string;
  reasons: string[];
  versions: string[];
  /** A value for each place, or, of a label that few have, only for theirs. */
  labels: Record<string, Record<number, string | null | undefined>>;
}

export type Axis = "device" | "update" | "workloads";

/** id, a character for each axis, reason, version, labels. */
export type ChangedRow = [string, string, string, string, Record<string, string>];

export interface Changes {
  rows: ChangedRow[];
  gone: string[];
}

export interface DeviceLine {
  id: string;
  device: string;
  update: string;
  workloads: string;
  reason: string;
  last_seen: string | null;
  labels: Record<string, string>;
  wanted_generation: number | null;
  observed_generation: number | null;
  agent_version: string;
}

export interface ScorePart {
  id: string;
  kind: string;
  version: number;
  status: string;
  reason: string;
  message: string;
  error_code: string | null;
  retry_at: string | null;
  since: string;
  looked_at: string | null;
  /** Where it comes from: "agent", the device's own manifest, or "class:…". */
  layer: string;
  observed_generation: number;
  attempts: number;
  progress: { done: number; total: number | null; unit: string } | null;
  drift_count: number;
  last_drift: { at: string; resource: string; before: string; after: string } | null;
  resources_total: number;
  resources_ready: number;
  resources: { id: string; is_ready: boolean; facts: Record<string, unknown> }[];
}

export interface DevicePage {
  line: DeviceLine;
  presence: string;
  presence_at: string | null;
  problem: string;
  policy: string;
  removals_held: number;
  conditions: { type: string; status: string; reason: string; message: string; last_transition_time: string }[];
  vitals: Fact[];
  inventory: Fact[];
  inventory_problem: string;
  layers: LayerPart[];
  scores: ScorePart[];
}

/** One class of a device, as that follows it. */
export interface LayerPart {
  name: string;
  /** 0 for none. */
  generation: number;
  wanted: number;
  phase: string;
  reason: string;
  message: string;
  since: string;
}

/** Something that is known of a device itself. */
export interface Fact {
  name: string;
  text: string;
}

export interface RolloutLine {
  name: string;
  selector: string;
  priority: number;
  state: string;
  generation: number | null;
  wave: number | null;
  waves: number | null;
  counts: Record<string, number>;
  why: string;
  since: string | null;
  problem: string;
  number: number;
}

export interface RolloutList {
  /** Why what is told may be old; empty where it is not. */
  problem: string;
  only_looks: string;
  lines: RolloutLine[];
}

export interface RolloutAction {
  verb: string;
  is_signed_here: boolean;
  command: string;
  why: string;
}

export interface RolloutPage {
  line: RolloutLine;
  at: string;
  supersedes: number | null;
  deadline_s: number | null;
  waves: { upto: string; state: string; soak_s: number; soaks_until: string | null; counts: Record<string, number> }[];
  devices: { id: string; wave: number; slot: number; state: string; reason: string; until: string | null; ready_since: string | null }[];
  devices_left: number;
  actions: RolloutAction[];
  only_looks: string;
}

export interface DeviceEvent {
  at?: unknown;
  score?: unknown;
  why?: unknown;
  generation?: unknown;
  resource?: unknown;
  actions?: unknown;
  diff?: unknown;
  seq?: unknown;
}

export interface LogLine {
  at: string;
  resource: string;
  stream: string;
  text: string;
}

/** What the server says went wrong. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Who is signed in; null for nobody; undefined before that is known. */
export const me = signal<Me | null | undefined>(undefined);

/** Whether *role* may do what is for *needed*. */
export function includes(role: Role, needed: Role): boolean {
  const roles: Role[] = ["viewer", "operator", "approver"];
  return roles.indexOf(role) >= roles.indexOf(needed);
}

/** Call the server. Raises `Problem`; where nobody is signed in any more, the page says so. */
export async function call<T>(path: string, options: RequestInit & { body?: string } = {}): Promise<T> {
  let reply: Response;
  try {
    reply = await fetch(path, {
      ...options,
      headers: options.body ? { "Content-Type": "application/json" } : {},
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "Unreachable", "harmony serve is not reachable; is it running?");
  }
  if (reply.ok) return (reply.status === 204 ? undefined : await reply.json()) as T;
  if (reply.status === 401 && path !== "/api/session") me.value = null;
  const told = (await reply.json().catch(() => ({}))) as { code?: string; message?: string };
  throw new Problem(reply.status, told.code ?? String(reply.status), told.message ?? reply.statusText);
}

/** The sentence of whatever was raised. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

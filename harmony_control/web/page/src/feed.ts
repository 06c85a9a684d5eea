// How the page stays true: one tab of all holds the stream of changes, and passes it to the others. A browser has
// six connections to a server, and a seventh tab with a stream of its own would hang every other request.
//
// navigator.locks elects that tab, and the next one when it is closed; a BroadcastChannel feeds the others. Who has
// missed something reads the whole fleet anew. What is shown is never called live unless something was heard lately.

import { signal } from "@preact/signals-core";
import { call, type Changes, type FleetColumns, me, type RolloutList, sentence } from "./api";
import { fleet, news } from "./fleet";

/** Why what is shown may be old; empty while it is live; null before anything was read. */
export const staleness = signal<string | null>(null);
/** When something was heard last. */
export const heardAt = signal<number>(0);
/** How all rollouts stand; null before that was told. */
export const rollouts = signal<RolloutList | null>(null);

type Word =
  | { kind: "changes"; from: string; to: string; changes: Changes }
  | { kind: "reset" }
  | { kind: "source"; problem: string }
  | { kind: "rollouts"; list: RolloutList }
  | { kind: "ask" };

const AGAIN_MS = 2000;
const SILENT_MS = 45_000;

class Feed {
  private channel = new BroadcastChannel("harmony");
  private ending = new AbortController();
  private problem = "";
  private isLeading = false;
  private loading: Promise<void> | null = null;

  start(): void {
    this.channel.onmessage = (event: MessageEvent<Word>) => this.hear(event.data);
    const watch = setInterval(() => {
      if (Date.now() - heardAt.peek() > SILENT_MS) staleness.value = "nothing was heard for a while";
    }, 5000);
    this.ending.signal.addEventListener("abort", () => {
      clearInterval(watch);
      this.channel.close();
    });
    void this.load().then(() => {
      this.channel.postMessage({ kind: "ask" } satisfies Word);
      navigator.locks
        .request("harmony-feed", { signal: this.ending.signal }, () => this.lead())
        .catch(() => undefined); // it was ended while it waited
    });
  }

  stop(): void {
    this.ending.abort();
  }

  /** Read the whole fleet; who asks meanwhile gets the same. */
  private load(): Promise<void> {
    this.loading ??= this.read().finally(() => (this.loading = null));
    return this.loading;
  }

  private async read(): Promise<void> {
    while (!this.ending.signal.aborted) {
      try {
        fleet.load(await call<FleetColumns>("/api/fleet"));
        news.value = { changed: null };
        this.heard();
        return;
      } catch (error) {
        staleness.value = sentence(error);
        if (me.peek() === null) return;
        await pause(AGAIN_MS);
      }
    }
  }

  private heard(): void {
    heardAt.value = Date.now();
    staleness.value = this.problem;
  }

  private hear(word: Word): void {
    if (word.kind === "ask") {
      if (!this.isLeading) return;
      this.tell({ kind: "source", problem: this.problem });
      const list = rollouts.peek();
      if (list) this.tell({ kind: "rollouts", list });
      return;
    }
    if (word.kind === "source") this.problem = word.problem;
    else if (word.kind === "rollouts") rollouts.value = word.list;
    else if (word.kind === "reset") return void this.load();
    else if (!this.take(word)) return void this.load();
    this.heard();
  }

  private tell(word: Word): void {
    this.channel.postMessage(word);
  }

  /** Take changes in; false where something before them is not known here. */
  private take({ from, to, changes }: { from: string; to: string; changes: Changes }): boolean {
    const [known, begin, end] = [parse(fleet.tag), parse(from), parse(to)];
    if (known.epoch !== begin.epoch || known.epoch !== end.epoch || known.number < begin.number) return false;
    if (known.number < end.number) news.value = fleet.apply(changes, to);
    return true;
  }

  private async lead(): Promise<void> {
    this.isLeading = true;
    while (!this.ending.signal.aborted && me.peek()) {
      const isLost = await this.follow();
      if (this.ending.signal.aborted) break;
      if (!isLost) continue;
      this.problem = "the connection to harmony serve was lost; it is made anew";
      staleness.value = this.problem;
      this.tell({ kind: "source", problem: this.problem });
      await pause(AGAIN_MS);
      // A browser does not say why a stream has ended; this does, where nobody is signed in any more.
      await call("/api/session").catch((error: unknown) => {
        if (error instanceof Error && "status" in error && error.status === 401) me.value = null;
      });
    }
    this.isLeading = false;
  }

  /** Pass on one stream, until it ends; true where it was lost, false where the next is to begin at once. */
  private follow(): Promise<boolean> {
    const stream = new EventSource(`/api/fleet/changes?since=${encodeURIComponent(fleet.tag)}`);
    return new Promise((done) => {
      const end = (isLost: boolean) => {
        clearInterval(watch);
        stream.close();
        this.ending.signal.removeEventListener("abort", abort);
        done(isLost);
      };
      const abort = () => end(false);
      const watch = setInterval(() => {
        if (Date.now() - heardAt.peek() > SILENT_MS) end(true);
      }, 5000);
      this.ending.signal.addEventListener("abort", abort);
      stream.onerror = () => end(true);
      stream.addEventListener("source", (event) => {
        this.problem = (JSON.parse(event.data) as { problem: string }).problem;
        this.tell({ kind: "source", problem: this.problem });
        this.heard();
      });
      stream.addEventListener("alive", () => {
        this.tell({ kind: "source", problem: this.problem });
        this.heard();
      });
      stream.addEventListener("rollouts", (event) => {
        const list = JSON.parse(event.data) as RolloutList;
        rollouts.value = list;
        this.tell({ kind: "rollouts", list });
        this.heard();
      });
      stream.addEventListener("changes", (event) => {
        const changes = JSON.parse(event.data) as Changes;
        const word = { kind: "changes" as const, from: fleet.tag, to: event.lastEventId, changes };
        if (!this.take(word)) return void this.load().then(abort);
        this.tell(word);
        this.heard();
      });
      stream.addEventListener("reset", () => {
        this.tell({ kind: "reset" });
        void this.load().then(abort);
      });
    });
  }
}

function parse(tag: string): { epoch: string; number: number } {
  const [epoch = "", number = ""] = tag.split("-");
  return { epoch, number: Number(number) };
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

let feed: Feed | null = null;

export function startFeed(): void {
  feed ??= new Feed();
  feed.start();
}

export function stopFeed(): void {
  feed?.stop();
  feed = null;
  staleness.value = null;
  rollouts.value = null;
}

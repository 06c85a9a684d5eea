// A Score's logs, as they are written. Only a page that is looked at has a stream: a browser has few connections.

import { useEffect, useRef, useState } from "preact/hooks";
import type { LogLine } from "./api";
import { clock, html } from "./ui";
import { go } from "./view";

const MOST = 2000;

export function Logs({ device, score }: { device: string; score: string }) {
  const [lines, setLines] = useState<LogLine[]>([]);
  const [problem, setProblem] = useState("");
  const [isLive, setLive] = useState(false);
  const [turn, setTurn] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);

  useEffect(() => {
    let stream: EventSource | null = null;
    let waiting: LogLine[] = [];
    let isDue = 0;
    const put = () => {
      isDue = 0;
      const came = waiting;
      waiting = [];
      setLines((before) => [...before, ...came].slice(-MOST));
    };
    const begin = () => {
      if (document.hidden || stream) return;
      setProblem("");
      waiting = [];
      setLines([]);
      stream = new EventSource(`/api/devices/${encodeURIComponent(device)}/logs?score=${encodeURIComponent(score)}`);
      stream.onopen = () => setLive(true);
      stream.addEventListener("item", (event) => {
        waiting.push(JSON.parse(event.data) as LogLine);
        isDue ||= requestAnimationFrame(put);
      });
      const end = (why: string) => {
        stream?.close();
        stream = null;
        setLive(false);
        setProblem(why);
      };
      stream.addEventListener("problem", (event) => end((JSON.parse(event.data) as { message: string }).message));
      stream.addEventListener("end", () => end("the device has ended its answer"));
      stream.onerror = () => end("the connection to harmony serve was lost, or too many logs are being read");
    };
    const look = () => {
      if (!document.hidden) return begin();
      stream?.close();
      stream = null;
      setLive(false);
    };
    begin();
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      cancelAnimationFrame(isDue);
      stream?.close();
    };
  }, [device, score, turn]);

  useEffect(() => {
    const node = box.current;
    if (node && isAtEnd.current) node.scrollTop = node.scrollHeight;
  }, [lines]);
  const onScroll = () => {
    const node = box.current as HTMLDivElement;
    isAtEnd.current = node.scrollTop + node.clientHeight > node.scrollHeight - 24;
  };
  return html`
    <div class="logshead">
      <button type="button" onClick=${() => go(device)}>‹ Back</button>
      <h3>Logs of ${score}</h3>
      <span class=${isLive ? "live on" : "live"}>${isLive ? "live" : "not live"}</span>
      ${!isLive && html`<button type="button" onClick=${() => setTurn(turn + 1)}>Again</button>`}
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <div class="log" ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label=${`Logs of ${score}`}>
      ${lines.length === 0 && !problem && html`<p class="quiet">Nothing was logged yet.</p>`}
      ${lines.map((each) => html`<div class=${each.stream === "stderr" ? "logline err" : "logline"}><time title=${each.at}>${clock(each.at)}</time> <span class="quiet">${each.resource}</span> ${each.text}</div>`)}
    </div>`;
}

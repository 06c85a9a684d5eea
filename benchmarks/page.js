// Watches the page of `harmony serve` from outside of it, before any script of its own runs.
//
// What a batch of changes takes is two stretches: from the event to the end of what it sets off, parts of the page that
// are made anew included; and from the beginning of the frame to its end, when the browser has what it shows. The wait
// for that frame, up to 16 ms, is nobody's work. A batch is passed on once the page shows again that it is live, or the
// place of that line would be laid out in the same frame.
(() => {
  const SETTLED_MS = 300;
  const bench = (window.bench = { stream: null, data: "", script: null, frames: [] });
  const hear = EventSource.prototype.addEventListener;
  EventSource.prototype.addEventListener = function (kind, heard) {
    if (kind !== "changes") return hear.call(this, kind, heard);
    bench.stream = this;
    hear.call(this, kind, (event) => {
      setTimeout(() => {
        const begun = performance.now();
        heard(event);
        bench.data = event.data;
        // After the page's own, by which it makes its parts anew.
        queueMicrotask(() => (bench.script = performance.now() - begun));
      }, SETTLED_MS);
    });
  };
  const ask = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) =>
    ask((at) => {
      const begun = performance.now();
      draw(at);
      const [drawn] = performance.getEntriesByName("harmony-draw");
      if (!drawn || drawn.startTime < begun) return;
      const { script } = bench;
      bench.script = null;
      const after = new MessageChannel();
      after.port1.onmessage = () => {
        const ms = performance.now() - begun;
        bench.frames.push({ cells: drawn.detail, isBatch: script !== null, draw: drawn.duration, ms: ms + (script ?? 0) });
      };
      after.port2.postMessage(null);
    });
})();

// The floor of page.*: a canvas and nothing else. It parses the same changes, keeps them by id, and paints the same cells.
(([width, height, cell, ids]) => {
  const canvas = document.body.appendChild(document.createElement("canvas"));
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d", { alpha: false });
  const sprite = document.createElement("canvas");
  sprite.width = sprite.height = cell;
  const columns = Math.floor(width / cell);
  const places = new Map(ids.map((id, place) => [id, place]));
  const known = new Map();
  const paint = sprite.getContext("2d");
  paint.fillStyle = "#23855b";
  paint.arc(cell / 2, cell / 2, cell * 0.3, 0, 7);
  paint.fill();
  pen.fillStyle = "#ffffff";
  window.floor = (data) =>
    new Promise((done) => {
      const begun = performance.now();
      const { rows } = JSON.parse(data);
      for (const row of rows) known.set(row[0], row);
      const script = performance.now() - begun;
      requestAnimationFrame(() => {
        const begun = performance.now();
        for (const [id] of rows) {
          const at = places.get(id);
          const [x, y] = [(at % columns) * cell, Math.floor(at / columns) * cell];
          pen.fillRect(x, y, cell, cell);
          pen.drawImage(sprite, x, y);
        }
        const after = new MessageChannel();
        after.port1.onmessage = () => done(script + performance.now() - begun);
        after.port2.postMessage(null);
      });
    });
})

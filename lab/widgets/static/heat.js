// A picture of a table of numbers; a click (or arrow keys) selects a cell. Pixels are made in Python.
function render({ model, el }) {
  const title = document.createElement("div");
  const canvas = document.createElement("canvas");
  const note = document.createElement("div");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.style.cssText = "width:100%;height:220px;image-rendering:pixelated;cursor:crosshair";
  note.style.cssText = "font-size:85%;opacity:.8";
  el.append(title, canvas, note);
  const draw = () => {
    const [rows, columns] = model.get("shape");
    title.textContent = model.get("title");
    note.textContent = model.get("note");
    canvas.setAttribute("aria-label", model.get("title"));
    if (!rows || !columns) return;
    canvas.width = columns;
    canvas.height = rows;
    const bytes = new Uint8Array(model.get("pixels").buffer, model.get("pixels").byteOffset);
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      image.data.set([bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    const [row, column] = model.get("selected");
    if (row >= 0) {
      context.fillStyle = "#D55E00";
      context.fillRect(column, row, 1, 1);
    }
  };
  const select = (row, column) => {
    const [rows, columns] = model.get("shape");
    const within = (x, n) => Math.max(0, Math.min(n - 1, x));
    model.set("selected", [within(row, rows), within(column, columns)]);
    model.save_changes();
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const [rows, columns] = model.get("shape");
    select(Math.floor(((event.clientY - box.top) / box.height) * rows),
           Math.floor(((event.clientX - box.left) / box.width) * columns));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = model.get("selected");
    select(row + step[0], column + step[1]);
  });
  model.on("change:pixels change:shape change:selected change:title change:note", draw);
  draw();
  return () => model.off(null, draw);
}
export default { render };

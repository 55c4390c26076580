// Axial slices of a volume: voxels above a threshold in colour over the outline of the brain.
function render({ model, el }) {
  const title = document.createElement("div");
  const canvas = document.createElement("canvas");
  const slider = (label, trait, max) => {
    const row = document.createElement("label");
    const input = document.createElement("input");
    row.style.cssText = "display:flex;gap:8px;align-items:center";
    input.type = "range";
    input.min = 0;
    input.max = max;
    input.style.flex = "1";
    row.append(label, input);
    input.addEventListener("input", () => { model.set(trait, Number(input.value)); model.save_changes(); });
    return { row, input };
  };
  const cut = slider("slice", "slice", 1), limit = slider("threshold", "threshold", 254);
  canvas.style.cssText = "width:min(100%,360px);image-rendering:pixelated;display:block";
  canvas.setAttribute("role", "img");
  el.append(title, canvas, cut.row, limit.row);
  const view = (name) => {
    const data = model.get(name);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  };
  const draw = () => {
    const [X, Y, Z] = model.get("shape");
    title.textContent = model.get("title");
    canvas.setAttribute("aria-label", model.get("title"));
    if (!X) return;
    cut.input.max = Z - 1;
    cut.input.value = model.get("slice");
    limit.input.value = model.get("threshold");
    const values = view("values"), colours = view("colours");
    canvas.width = X;
    canvas.height = Y;
    const context = canvas.getContext("2d");
    const image = context.createImageData(X, Y);
    for (let i = 0; i < X; i++) {
      for (let j = 0; j < Y; j++) {
        const v = values[(i * Y + j) * Z + model.get("slice")];
        const at = 4 * ((Y - 1 - j) * X + i);
        if (v > 0 && v >= model.get("threshold")) image.data.set([...colours.slice(3 * v, 3 * v + 3), 255], at);
        else image.data.set([127, 135, 144, v > 0 ? 90 : 25], at);
      }
    }
    context.putImageData(image, 0, 0);
  };
  model.on("change:values change:slice change:threshold change:title", draw);
  draw();
  return () => model.off(null, draw);
}
export default { render };

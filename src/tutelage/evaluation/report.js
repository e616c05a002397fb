(() => {
  "use strict";
  const tools = document.getElementById("row-tools");
  const open = () => document.querySelectorAll("details").forEach((d) => { d.open = true; });
  window.addEventListener("beforeprint", open);
  if (!tools) return;
  const find = document.getElementById("row-find");
  const kind = document.getElementById("row-kind");
  const count = document.getElementById("row-count");
  const rows = [...document.querySelectorAll("div.row")];
  const parts = [...document.querySelectorAll("details.rows")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const first = parts.map((part) => part.open);
  let narrowed = false;
  const apply = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const was = narrowed;
    narrowed = words.length > 0 || kind.value !== "";
    let shown = 0;
    rows.forEach((row, i) => {
      const on = (!kind.value || row.dataset.kind === kind.value)
        && words.every((word) => texts[i].includes(word));
      row.hidden = !on;
      shown += on ? 1 : 0;
    });
    parts.forEach((part, i) => {
      const some = part.querySelector("div.row:not([hidden])") !== null;
      part.hidden = narrowed && !some;
      if (narrowed) part.open = some;
      else if (was) part.open = first[i];
    });
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  find.addEventListener("input", apply);
  kind.addEventListener("change", apply);
  tools.hidden = false;
  apply();
})();

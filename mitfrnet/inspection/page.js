"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const { duration, modalities, masks, models, scale, label } = data;
  const media = get("media"), play = get("play"), seek = get("seek"), lanes = get("lanes");
  const still = get("still"), frames = all(".frame"), tokens = all(".token");
  const boxes = all('input[name="given"]');
  const fixed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

  // Position in the clip.

  let shown = -1;
  function goTo(time) {
    lanes.style.setProperty("--at", time / duration);
    seek.value = time;
    const token = tokens.find((t) => {
      const [start, end] = data.tokens[t.dataset.token];
      return start <= time && time < end;
    });
    for (const t of tokens) t.classList.toggle("now", t === token);
    get("clock").textContent = `${time.toFixed(2)} s`;
    seek.setAttribute("aria-valuetext",
      `${time.toFixed(2)} of ${duration.toFixed(2)} seconds${token ? `, ${token.textContent}` : ""}`);
    let nearest = 0;
    data.stills.forEach((at, i) => { if (at <= time + 1e-3) nearest = i; });
    if (still && nearest !== shown) {
      shown = nearest;
      still.src = frames[nearest].src;
      still.alt = `Frame at ${frames[nearest].alt}`;
      get("still-text").textContent = frames[nearest].alt;
    }
  }
  function jump(time) {
    const to = Math.min(Math.max(time, 0), duration);
    if (media && Number.isFinite(media.duration)) media.currentTime = Math.min(to, media.duration);
    goTo(to);
  }
  seek.addEventListener("input", () => jump(Number(seek.value)));
  lanes.addEventListener("pointerdown", (event) => {
    const lane = event.target.closest(".lane:not(.none)");
    if (!lane || lane.contains(seek) || event.button) return;
    const box = lane.getBoundingClientRect();
    const follow = (e) => jump((e.clientX - box.left) / box.width * duration);
    // Dragging by touch scrolls the page, so only a tap seeks.
    if (event.pointerType === "touch") {
      lane.addEventListener("click", follow, { once: true });
      return;
    }
    event.preventDefault();
    follow(event);
    window.addEventListener("pointermove", follow);
    window.addEventListener("pointerup",
      () => window.removeEventListener("pointermove", follow), { once: true });
  });
  if (media) {
    const followMedia = () => {
      goTo(Math.min(media.currentTime, duration));
      if (!media.paused && !media.ended) requestAnimationFrame(followMedia);
    };
    const updateButton = () => {
      const playing = !media.paused && !media.ended;
      play.textContent = playing ? "Pause" : "Play";
      play.setAttribute("aria-pressed", playing);
    };
    for (const kind of ["play", "pause", "ended"]) media.addEventListener(kind, updateButton);
    media.addEventListener("play", followMedia);
    media.addEventListener("seeked", () => { if (media.paused) goTo(Math.min(media.currentTime, duration)); });
    play.addEventListener("click", () => (media.paused ? media.play() : media.pause()));
    if (data.captions.length && media.tagName === "VIDEO") {
      const track = media.addTextTrack("captions", "Transcript");
      for (const [start, end, text] of data.captions) track.addCue(new VTTCue(start, end, text));
    }
  }

  // Given modalities and the mask.

  const chosenMask = () => Number(get("mask").value);
  const isGiven = (m) => boxes.some((box) => box.value === m && box.checked);
  const givenNumber = () => modalities.reduce((n, m, i) => n + (isGiven(m) ? 1 << i : 0), 0);

  function count(m, mask) {
    const special = (i) => m === "text" && data.tokens[i][2];
    let hidden = 0, of = 0;
    [...data.detected[m]].forEach((detected, i) => {
      if (detected === "0" || special(i)) return;
      of += 1;
      hidden += !isGiven(m) || mask.kept[m][i] === "0" ? 1 : 0;
    });
    return [hidden, of];
  }
  function showMask() {
    const index = chosenMask(), mask = masks[index];
    for (const path of all("[data-mask]")) path.toggleAttribute("hidden", Number(path.dataset.mask) !== index);
    for (const part of all("[data-pattern], .veil")) {
      const m = part.dataset.pattern || part.dataset.modality;
      part.classList.toggle("away", !data.missing[m] && !isGiven(m));
    }
    for (const t of tokens) t.classList.toggle("masked", mask.kept.text[t.dataset.token] === "0");
    get("hidden").textContent = "Hidden: " + modalities.map((m) => {
      if (data.missing[m]) return `${data.names[m].toLowerCase()} naturally missing`;
      const [hidden, of] = count(m, mask);
      return `${hidden} of ${of} steps of ${data.names[m].toLowerCase()}`;
    }).join(", ") + ".";
    const rows = all("#as-table tbody tr");
    ["acoustic", "visual"].forEach((m, column) => {
      const counts = rows.map(() => [0, 0]);
      data.times[m].forEach((time, i) => {
        const row = counts[Math.min(rows.length - 1, Math.floor(time / duration * rows.length))];
        if (data.detected[m][i] === "0") return;
        row[1] += 1;
        row[0] += !isGiven(m) || mask.kept[m][i] === "0" ? 1 : 0;
      });
      rows.forEach((row, i) => {
        const cell = row.cells[row.cells.length - 2 + column];
        cell.textContent = counts[i][1] ? `${counts[i][0]} of ${counts[i][1]}` : "–";
      });
    });
  }

  // Predictions.

  const worded = (value) => {
    if (scale.classes) return scale.classes[Math.round(value)];
    const side = Math.sign(value - scale.neutral);
    return `${fixed(value)} ${["negative", "neutral", "positive"][side + 1]}`;
  };
  const moved = (value, from) => {
    if (scale.classes) return value === from ? "same" : `was ${worded(from)}`;
    return fixed(value - from);
  };
  function showPrediction() {
    const values = models[get("model") ? get("model").value : 0].values;
    const mask = chosenMask(), number = givenNumber(), value = values[mask][number];
    const present = modalities.reduce((n, m, i) => n + (data.missing[m] ? 0 : 1 << i), 0);
    const complete = values[0][present];
    get("value").textContent = worded(value);
    get("moved").textContent = `With everything given: ${worded(complete)}` +
      (scale.classes || value === complete ? "" : `, a change of ${fixed(value - complete)}`) +
      (label === null ? "." : `; labelled ${worded(label)}.`);
    if (!scale.classes) drawScale(value, complete);
    all("#by-way tbody tr").forEach((row, i) => {
      const way = data.ways[i][1];
      row.cells[1].textContent = worded(values[mask][way]);
      row.cells[2].textContent = moved(values[mask][way], values[mask][present]);
      row.classList.toggle("chosen", way === (number & present));
    });
    all("#by-mask tbody tr").forEach((row, i) => {
      row.cells[1].textContent = worded(values[i][number]);
      row.cells[2].textContent = moved(values[i][number], values[0][number]);
      row.classList.toggle("chosen", i === mask);
    });
    if (!scale.classes) drawChart(values.map((row) => row[number]), mask);
  }
  function drawScale(value, complete) {
    const place = (x) => `${100 * (Math.min(Math.max(x, scale.low), scale.high) - scale.low) / (scale.high - scale.low)}%`;
    const box = get("scale");
    box.hidden = false;
    for (const old of [...box.children].slice(1)) old.remove();
    const put = (tag, x, text, kind) => {
      const part = document.createElement(tag);
      part.style.left = place(x);
      part.textContent = text;
      part.className = kind;
      if (tag === "span" && x === scale.low) part.style.transform = "none";
      if (tag === "span" && x === scale.high) part.style.transform = "translateX(-100%)";
      box.append(part);
    };
    put("i", scale.neutral, "", "");
    put("i", complete, "", "");
    for (const x of [scale.low, scale.neutral, scale.high]) put("span", x, String(x).replace("-", "−"), "");
    if (label !== null) {
      put("b", label, "", "label");
      const part = document.createElement("span");
      part.className = "above";
      part.textContent = "label";
      const share = (label - scale.low) / (scale.high - scale.low);
      part.style.left = place(label);
      if (share < .06) part.style.transform = "none";
      if (share > .94) part.style.transform = "translateX(-100%)";
      box.append(part);
    }
    put("b", value, "", "");
  }
  function drawChart(values, chosen) {
    const points = masks.map((mask, i) => [mask.rate, values[i], i]).filter((p) => p[0] !== null);
    const svg = get("chart").firstElementChild;
    get("chart").hidden = points.length < 2;
    svg.replaceChildren();
    const x = (rate) => 34 + 356 * rate;
    const y = (v) => 170 - 158 * (Math.min(Math.max(v, scale.low), scale.high) - scale.low) / (scale.high - scale.low);
    const put = (tag, attributes, text) => {
      const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
      if (text !== undefined) part.textContent = text;
      svg.append(part);
      return part;
    };
    for (const v of [scale.low, scale.neutral, scale.high]) {
      put("line", { class: "axis", x1: x(0), x2: x(1), y1: y(v), y2: y(v) });
      put("text", { x: 28, y: y(v) + 4, "text-anchor": "end" }, String(v).replace("-", "−"));
    }
    for (const rate of [0, .5, 1]) put("text", { x: x(rate), y: 188, "text-anchor": "middle" }, rate);
    put("text", { x: x(.75), y: 188, "text-anchor": "middle" }, "missing rate");
    if (label !== null) put("line", { class: "truth", x1: x(0), x2: x(1), y1: y(label), y2: y(label) });
    put("path", { class: "line", d: "M" + points.map((p) => `${x(p[0])} ${y(p[1])}`).join("L") });
    for (const [rate, value, i] of points) {
      const dot = put("circle", { cx: x(rate), cy: y(value), r: 5, class: i === chosen ? "chosen" : "" });
      dot.addEventListener("click", () => { get("mask").value = i; update(); });
    }
  }
  function update() {
    showMask();
    if (models.length && scale) showPrediction();
  }
  get("mask").value = data.opening;
  for (const control of [get("mask"), get("model"), ...boxes]) {
    if (control) control.addEventListener("change", update);
  }
  goTo(0);
  update();
})();

"use strict";
// The timeline page. All that comes from the recording is set as text (textContent, fillText), never as HTML.
//
//   unpack ─▶ index (ends, sums of states) ─▶ layout (which line stands where) ─▶ draw, once a frame
//
// Bars, hatching and strips are written into one image, pixel by pixel: it costs the same for a hundred bars and for 300,000, where rectangles of a canvas took
// 50 ms and more. Text, outlines and arrows are drawn over it. Sizes on screen are in CSS pixels, those in the image in device pixels (names in capitals: U).

const $ = id => document.getElementById(id);
document.documentElement.className = "on";

async function unpack(id) {
  const text = $(id).textContent.trim();
  $(id).textContent = "";
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
  else {
    const raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

function columnsOf(buffer, columns, count) {            // they travel as planes: all first bytes, all second bytes, ...
  const raw = new Uint8Array(buffer), types = {d: Float64Array, f: Float32Array, I: Uint32Array, B: Uint8Array}, found = {};
  let at = 0;
  for (const [name, letter] of columns) {
    const size = types[letter].BYTES_PER_ELEMENT, bytes = new Uint8Array(count * size);
    for (let plane = 0; plane < size; plane++, at += count)
      for (let i = 0, to = plane; i < count; i++, to += size) bytes[to] = raw[at + i];
    found[name] = new types[letter](bytes.buffer);
  }
  return found;
}

function above(low, high, is) {                         // the first of low..high for which it is so; high if for none
  while (low < high) { const middle = (low + high) >>> 1; if (is(middle)) high = middle; else low = middle + 1 }
  return low;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const COMPUTING = 0, WAITING = 1, LOCK = 2, GIL = 3, CPU = 4, QUEUED = 6, IDLE = 7, UNKNOWN = 8;
const OK = 0, FAILED = 1, RETRIED = 2, CANCELLED = 3, TIMEOUT = 4, CRASHED = 5, UNFINISHED = 6;
const MARKS = ["", "✗", "↻", "⊘", "✗", "✗", "…"];

function duration(t) {                                  // three digits that count
  if (Number.isNaN(t) || t === null || t === undefined) return "not known";
  const size = Math.abs(t);
  if (size >= 99.95) return t.toFixed(size < 999.5 ? 1 : 0) + " s";
  if (size >= .9995 || size === 0) return t.toFixed(size < 9.995 ? 2 : 1) + " s";
  const [scale, unit] = size >= .9995e-3 ? [1e3, " ms"] : size >= .9995e-6 ? [1e6, " µs"] : [1e9, " ns"], value = t * scale;
  return (unit === " ns" ? value.toFixed(0) : value.toFixed(Math.abs(value) < 9.995 ? 2 : Math.abs(value) < 99.95 ? 1 : 0)) + unit;
}
function moment(t, step) {                              // a time on the axis, fine enough for steps of that size
  return t.toFixed(Math.max(0, Math.min(9, Math.ceil(-Math.log10(step) - 1e-9)))) + " s";
}
const many = (n, one, more) => n.toLocaleString("en") + " " + (n === 1 ? one : more || one + "s");
const percent = share => (Number.isFinite(share) ? Math.round(100 * share) + " %" : "–");

// ---------------------------------------------------------------- colours and hatching

const HATCH = [                                         // of 8 by 8 squares: whether a square is darker
  () => false,                                          // computing: solid
  (x, y) => y % 4 === 0 && x % 4 === (y ? 2 : 0),       // waiting: dots
  (x, y) => (x + y) % 8 === 0 || (x - y + 8) % 8 === 0, // lock: crosses
  (x, y) => (x + y) % 4 === 0,                          // GIL: diagonals /
  (x, y) => y % 4 === 0,                                // no CPU: level lines
  (x, y) => x % 4 === 0,                                // joining: upright lines
  () => false,                                          // queued
  () => false,                                          // idle: a thin line
  (x, y) => (x - y + 8) % 8 < 2,                        // not known: broad diagonals \
];
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
const pixel = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
const mix = (a, b, share) => a.map((value, i) => Math.round(value + (b[i] - value) * share));

class Theme {                                           // the style's colours, and for each state a tile of pixels
  constructor(states, scale) {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["back", "raised", "band", "fore", "muted", "faint", "idle", "accent", "mark", "mark-text", "strip", "strip-queue", "strip-cpu"])
      this[name] = style.getPropertyValue("--" + name).trim();
    this.step = scale < 1.5 ? 1 : scale < 3 ? 2 : 4;    // device pixels of a square: a power of two, so that "modulo" is "and"
    this.size = 8 * this.step;
    const back = rgb(this.back);
    this.tiles = states.map((state, s) => this.tile(s, s === IDLE ? rgb(this.idle) : rgb(state.colour)));
    this.flat = states.map((state, s) => this.tile(s, s === IDLE ? rgb(this.idle) : rgb(state.colour), true));
    this.faded = states.map((state, s) => this.tile(s, mix(s === IDLE ? rgb(this.idle) : rgb(state.colour), back, .8)));
    this.pixels = Object.fromEntries(["back", "band", "faint", "idle", "strip", "strip-queue", "strip-cpu", "muted"].map(n => [n, pixel(rgb(this[n]))]));
    this.queued = pixel(mix(rgb(states[QUEUED].colour), rgb(this.fore), rgb(this.back)[0] < 128 ? .35 : 0));
  }
  tile(s, colour, flat) {
    const plain = pixel(colour), dark = pixel(mix(colour, [0, 0, 0], s === WAITING ? .34 : .24)), found = new Uint32Array(this.size * this.size);
    for (let y = 0; y < this.size; y++)
      for (let x = 0; x < this.size; x++) found[y * this.size + x] = !flat && HATCH[s](x / this.step | 0, y / this.step | 0) ? dark : plain;
    return found;
  }
}

function swatch(theme, s, width, height) {              // a small piece of what the picture has
  const canvas = make("canvas"), scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  canvas.setAttribute("aria-hidden", "true");
  const image = new ImageData(canvas.width, canvas.height), data = new Uint32Array(image.data.buffer);
  for (let y = 0; y < canvas.height; y++)
    for (let x = 0; x < canvas.width; x++) {
      const thin = (s === QUEUED || s === IDLE) && Math.abs(y + .5 - canvas.height / 2) > (s === IDLE ? 2.2 : 1.2) * scale;
      data[y * canvas.width + x] = thin ? 0 : s === QUEUED ? theme.queued : theme.tiles[s][(y & theme.size - 1) * theme.size + (x & theme.size - 1)];
    }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// ---------------------------------------------------------------- what was recorded, indexed

class Bars {
  constructor(names, buffer) {
    Object.assign(this, columnsOf(buffer, names.columns, names.count));
    this.names = names;
    this.count = names.count;
    this.states = [...names.states, {name: "at work", glyph: "?", colour: "#8c8c8c", meaning: "at a task; what of that was computing is not known"}];
    const n = this.count, S = this.states.length;
    this.line = new Uint32Array(n);
    this.first = new Uint32Array(names.lines.length + 1);
    names.lines.forEach(([, , count], l) => { this.first[l + 1] = this.first[l] + count; this.line.fill(l, this.first[l], this.first[l + 1]) });
    this.end = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      this.end[i] = this.start[i] + this.length[i];     // rounded, both: a bar ends where the next of its line begins at the latest
      if (i && this.line[i] === this.line[i - 1] && this.end[i - 1] > this.start[i]) this.end[i - 1] = Math.max(this.start[i], this.start[i - 1]);
    }
    // sums[s][i]: the time in state s of all bars before i. What a pixel shows is a difference of two of them.
    this.sums = Array.from({length: S}, () => new Float64Array(n + 1));
    const parts = new Float64Array(S), used = new Array(S).fill(false);
    for (let i = 0; i < n; i++) {
      this.split(i, parts);
      for (let s = 0; s < S; s++) {
        if (parts[s] > 0) used[s] = true;
        this.sums[s][i + 1] = this.sums[s][i] + parts[s];
      }
    }
    this.used = used.flatMap((is, s) => is ? [s] : []);
    this.bad = [];                                      // in order, so by line and start: marked however small they are
    for (let i = 0; i < n; i++) if (this.kind[i] > OK && this.kind[i] < names.span) this.bad.push(i);
    this.matches = null;                                // of the search: an array of indexes in order, and sums of them as above
    this.density = new Map(Object.entries(names.densities).map(([row, [, text]]) => [+row, Uint8Array.from(atob(text), c => c.charCodeAt(0))]));
  }

  isTask(i) { return this.kind[i] < this.names.span }

  // Seconds in each state. Sums that were measured one by one may come to a little more than the whole: they are scaled to fit, for the picture only.
  split(i, parts) {
    const length = this.end[i] - this.start[i];
    parts.fill(0);
    if (this.kind[i] >= this.names.span) { parts[this.kind[i] - this.names.span] = length; return parts }
    const cpu = this.cpu[i], lock = this.lock[i], gil = this.gil[i], runqueue = this.runqueue[i];    // NaN if not known
    const sum = (parts[COMPUTING] = cpu > 0 ? cpu : 0) + (parts[LOCK] = lock > 0 ? lock : 0) + (parts[GIL] = gil > 0 ? gil : 0) + (parts[CPU] = runqueue > 0 ? runqueue : 0);
    if (sum > length) for (let s = 0; s < parts.length; s++) parts[s] *= length / sum;
    parts[cpu >= 0 ? WAITING : UNKNOWN] = Math.max(0, length - sum);
    return parts;
  }

  spent(s, i, t) {                                      // time in state s of the bars before i, and of i up to t
    const sums = this.sums[s], part = sums[i + 1] - sums[i];
    if (!(part > 0) || t <= this.start[i]) return sums[i];
    const length = this.end[i] - this.start[i];
    return t >= this.end[i] ? sums[i + 1] : sums[i] + part * (t - this.start[i]) / length;
  }

  text(i) {
    const text = this.names.texts[i];
    return text || (this.isTask(i) ? `task ${this.number[i]}` : this.states[this.kind[i] - this.names.span].name);
  }
  fn(i) {
    const text = this.names.texts[i], at = text.indexOf("(");
    return at > 0 ? text.slice(0, at) : (this.names.works[this.work[i]] || {}).name || "";
  }
  row(i) { return this.names.lines[this.line[i]][0] }
  at(line, t) {                                         // the bar of a line at a time, or -1
    const i = above(this.first[line], this.first[line + 1], j => this.end[j] > t);
    return i < this.first[line + 1] && this.start[i] <= t ? i : -1;
  }
}

function ordered(times) {                               // the order of times: by counting, and then few are out of place
  const n = times.length, order = new Uint32Array(n);
  let low = Infinity, high = -Infinity, worst = 0;
  for (let i = 0; i < n; i++) { if (times[i] < low) low = times[i]; if (times[i] > high) high = times[i] }
  const slots = 2 * n, scale = (slots - 1) / (high - low || 1), counts = new Uint32Array(slots + 1);
  for (let i = 0; i < n; i++) counts[Math.floor((times[i] - low) * scale) + 1]++;
  for (let s = 1; s <= slots; s++) { if (counts[s] > worst) worst = counts[s]; counts[s] += counts[s - 1] }
  for (let i = 0; i < n; i++) order[counts[Math.floor((times[i] - low) * scale)]++] = i;
  if (worst > 100) return order.sort((x, y) => times[x] - times[y]);    // all at once, or nearly: halves are better there
  for (let i = 1; i < n; i++) {
    const one = order[i];
    let to = i;
    for (; to && times[order[to - 1]] > times[one]; to--) order[to] = order[to - 1];
    order[to] = one;
  }
  return order;
}

class Strip {                                           // the sum of weights of many intervals, at any time
  constructor(froms, tos, weights) {
    [this.up, this.down] = [froms, tos].map(times => {
      const n = times.length;
      let order = null, sorted;
      if (weights) {
        order = ordered(times);
        sorted = new Float64Array(n);
        for (let i = 0; i < n; i++) sorted[i] = times[order[i]];
      } else sorted = times.slice().sort();
      const weight = new Float64Array(n + 1), moment = new Float64Array(n + 1);
      for (let i = 0; i < n; i++) {
        const w = order ? weights[order[i]] : 1;
        weight[i + 1] = weight[i] + w; moment[i + 1] = moment[i] + w * sorted[i];
      }
      return {sorted, weight, moment};
    });
    let most = 0;
    for (let i = 0, j = 0; i < froms.length; i++) {
      while (j < froms.length && this.down.sorted[j] <= this.up.sorted[i]) j++;
      most = Math.max(most, this.up.weight[i + 1] - this.down.weight[j]);
    }
    this.most = most;
  }
  mean(t0, t1) {
    const sum = (side, t) => {
      const k = above(0, side.sorted.length, i => side.sorted[i] > t);
      return [side.weight[k], side.weight[k] * t - side.moment[k]];
    };
    const [up0, area0] = sum(this.up, t0), [down0, area1] = sum(this.down, t0);
    if (t1 - t0 < 1e-5) return up0 - down0;             // areas of so short a time are differences of large numbers
    return Math.max(0, (sum(this.up, t1)[1] - sum(this.down, t1)[1] - area0 + area1) / (t1 - t0));
  }
}

// ---------------------------------------------------------------- the page

function start(names, buffer) {
  const bars = new Bars(names, buffer), rowOf = new Map(names.rows.map(row => [row.serial, row])), states = bars.states;
  const canvas = $("canvas"), g = canvas.getContext("2d", {alpha: false});
  const end = names.end > 2e-9 ? names.end : 1;
  const whole = [-.006 * end, 1.008 * end], view = {a: whole[0], b: whole[1], scroll: 0};   // a little more, so that both ends are seen
  const hidden = new Array(states.length).fill(false), folded = new Set();
  let selected = -1, hovered = -1, query = "", scale = 1, width = 0, height = 0, left = 0, theme, image, data, U = 0, V = 0;
  let lines = [], total = 0, rowHeight = 24, range = null, cursor = null;

  // ------------------------------------------------------------ rows

  const unnamed = row => ({serial: row, kind: "thread", name: `row ${row}`, ident: 0, native_id: 0, pid: names.host.pid, begin: 0, end, boot: null});
  const linesOf = new Map(), perRow = new Map();         // a row that is named nowhere, as of a recording cut short, is shown all the same
  names.lines.forEach(([row], l) => {
    if (!rowOf.has(row)) rowOf.set(row, unnamed(row));
    if (!linesOf.has(row)) linesOf.set(row, []);
    linesOf.get(row).push(l);
  });
  for (const row of bars.density.keys()) if (!rowOf.has(row)) rowOf.set(row, unnamed(row));
  for (const row of rowOf.keys()) perRow.set(row, {tasks: 0, busy: 0});
  for (let i = 0; i < bars.count; i++) {
    if (!bars.isTask(i)) continue;
    const [row, depth] = names.lines[bars.line[i]], sums = perRow.get(row);
    sums.tasks++;
    if (!depth) sums.busy += bars.length[i];            // what runs inside another task is in that one's time
  }
  for (const [row, bins] of bars.density) {             // what is not drawn one by one was work too
    const sums = perRow.get(row);
    sums.tasks += names.densities[row][0];
    sums.busy += bins.reduce((sum, bin) => sum + bin, 0) / 255 * end / names.bins;
  }

  const groups = [];                                    // {title, rows}: a process with its threads; processes that are one row each, together
  {
    const byPid = new Map();
    for (const row of [...rowOf.values()].sort((x, y) => (y.pid === names.host.pid) - (x.pid === names.host.pid) || x.serial - y.serial)) {
      if (!byPid.has(row.pid)) byPid.set(row.pid, []);
      byPid.get(row.pid).push(row);
    }
    const single = [];
    for (const [pid, rows] of byPid) {
      rows.sort((x, y) => (y.kind === "main") - (x.kind === "main") || x.serial - y.serial);
      if (rows.length > 1 || pid === names.host.pid) groups.push({key: "p" + pid, title: `process ${pid}` + (pid === names.host.pid && names.host.script ? ` · ${names.host.script}` : ""), rows});
      else single.push(...rows);
    }
    if (single.length) groups.push({key: "workers", title: many(single.length, "worker process", "worker processes"), rows: single});
  }

  const STRIPS = [];                                    // {name, of(t0, t1), most, colour, text(value)}
  function strips() {
    const where = is => {                               // the bars of which that is so
      const found = new Uint32Array(bars.count);
      let n = 0;
      for (let i = 0; i < bars.count; i++) if (bars.isTask(i) && is(i)) found[n++] = i;
      return found.subarray(0, n);
    };
    const of = (indexes, value) => { const found = new Float64Array(indexes.length); for (let i = 0; i < found.length; i++) found[i] = value(indexes[i]); return found };
    const tasks = where(() => true), begin = i => bars.start[i], finish = i => bars.end[i];
    const running = new Strip(of(tasks, begin), of(tasks, finish)), densities = [...bars.density.values()];
    const extra = t => { const bin = Math.min(names.bins - 1, Math.max(0, Math.floor(t / end * names.bins))); let sum = 0; for (const bins of densities) sum += bins[bin] / 255; return sum };
    let most = running.most;
    if (densities.length) for (let bin = 0; bin < names.bins; bin++) { const t = (bin + .5) / names.bins * end; most = Math.max(most, running.mean(t, t) + extra(t)) }
    const limit = Math.max(1, running.most, [...perRow.values()].filter(row => row.tasks).length);   // means of different times may come to more
    STRIPS.push({name: (densities.length ? "≈ " : "") + "running now", of: (t0, t1) => (densities.length ? Math.min(limit, running.mean(t0, t1) + extra((t0 + t1) / 2)) : running.mean(t0, t1)), most: Math.max(1, Math.min(limit, most)), colour: "strip", text: v => many(Math.round(v * 10) / 10, "running", "running"), high: 38});
    const waited = where(i => bars.wait[i] > 0);
    if (waited.length) {
      const queue = new Strip(of(waited, i => bars.start[i] - bars.wait[i]), of(waited, begin));
      STRIPS.push({name: "queued", of: (t0, t1) => queue.mean(t0, t1), most: Math.max(1, queue.most), colour: "strip-queue", text: v => many(Math.round(v * 10) / 10, "queued", "queued"), high: 28});
    }
    const timed = where(i => bars.cpu[i] >= 0);
    if (timed.length) {
      const cpu = new Strip(of(timed, begin), of(timed, finish), of(timed, i => Math.min(1, bars.cpu[i] / bars.length[i])));
      STRIPS.push({name: "≈ CPU %", of: (t0, t1) => cpu.mean(t0, t1), most: Math.max(1, Math.min(cpu.most, names.host.cores)), colour: "strip-cpu", text: v => `≈ ${Math.round(100 * v)} % CPU`, high: 28, percent: true});
    }
  }
  strips();
  const AXIS = 24, GAP = 4, HEAD = 22;
  const stripsHeight = STRIPS.reduce((sum, strip) => sum + strip.high + GAP, GAP), TOP = stripsHeight + AXIS;

  function layout() {                                   // what stands where: {y, high, line} or {y, high, group}, from 0 at the first row
    lines = [];
    let y = 0;
    for (const group of groups) {
      lines.push({y, high: HEAD, group, line: -1});
      y += HEAD;
      if (folded.has(group.key)) continue;
      for (const row of group.rows) {
        const own = linesOf.get(row.serial) || [];
        if (!own.length) { lines.push({y, high: rowHeight, line: -1, row}); y += rowHeight }
        for (const l of own) {
          const deep = names.lines[l][1] > 0, high = deep ? 16 : rowHeight;
          lines.push({y, high, line: l, row, deep});
          y += high;
        }
        y += own.length > 1 ? 3 : 0;
      }
    }
    total = y + 6;
  }
  const placeOf = line => lines.find(place => place.line === line);

  function resize() {
    scale = devicePixelRatio || 1;
    const box = $("picture");
    width = Math.max(240, document.documentElement.clientWidth);
    rowHeight = 24;
    layout();
    const rows = lines.filter(place => place.row && !place.deep).length;
    if (rows && innerHeight > 640) { rowHeight = Math.max(24, Math.min(34, Math.floor(24 + (innerHeight * .3 - total) / rows))); layout() }
    box.style.height = TOP + total + 2 + "px";          // the frame may make it lower, and then rows are scrolled
    const limit = Math.max(200, Math.floor(innerHeight * .62));
    height = Math.min(TOP + total, limit);
    box.style.height = height + 2 + "px";
    height = Math.max(120, box.clientHeight);
    left = Math.round(Math.max(110, Math.min(230, width * .22)));
    U = Math.round(width * scale); V = Math.round(height * scale);
    canvas.width = U; canvas.height = V;
    canvas.style.width = width + "px"; canvas.style.height = height + "px";
    image = new ImageData(U, V);
    data = new Uint32Array(image.data.buffer);
    theme = new Theme(states, scale);
    legend();
    limitView();
    later();
  }

  // ------------------------------------------------------------ the picture

  function fill(x0, y0, x1, y1, colour) {               // device pixels, clipped
    x0 = Math.max(0, x0); y0 = Math.max(0, y0); x1 = Math.min(U, x1); y1 = Math.min(V, y1);
    for (let y = y0; y < y1; y++) if (x1 > x0) data.fill(colour, y * U + x0, y * U + x1);
  }
  function hatch(x0, y0, x1, y1, tile) {
    const size = theme.size, mask = size - 1;
    if (y0 < clipTop) y0 = clipTop;
    if (y1 > clipBottom) y1 = clipBottom;
    for (let y = y0; y < y1; y++) {
      const from = (y & mask) * size;
      for (let x = x0, to = y * U + x0; x < x1; x++, to++) data[to] = tile[from + (x & mask)];
    }
  }
  let clipTop = 0, clipBottom = 0;
  // Layers from the bottom: computing, then what held it up, waiting on top.
  const ORDER = [COMPUTING, UNKNOWN, 5, GIL, CPU, LOCK, WAITING, QUEUED];

  function column(x0, x1, y0, y1, amounts, whole, tiles) {   // one bar, or the bars of one pixel: amounts of `whole`, as layers
    const high = y1 - y0;
    let sum = 0, drawn = 0;
    for (const s of ORDER) {
      if (!(amounts[s] > 0)) continue;
      sum += amounts[s];
      const to = Math.min(high, Math.round(sum / whole * high));
      if (to > drawn && !hidden[s]) hatch(x0, y1 - to, x1, y1 - drawn, tiles[s]);
      if (to > drawn) drawn = to;
    }
  }

  const amounts = new Float64Array(states.length), before = new Float64Array(states.length);

  function drawLine(place, Y0, Y1) {
    const l = place.line, x0 = Math.round(left * scale), span = U - x0, perSecond = span / (view.b - view.a), at = t => x0 + (t - view.a) * perSecond;
    const row = place.row, high = Y1 - Y0;
    if (!place.deep && row && !hidden[IDLE]) {          // its life: a grey line, that its work covers
      const from = Math.max(x0, Math.round(at(row.begin))), to = Math.min(U, Math.round(at(row.end))), middle = Y1 - Math.round(high / 2);
      if (to > from) hatch(from, Math.max(Y0, middle - Math.round(2 * scale)), to, Math.min(Y1, middle + Math.round(2 * scale)), theme.tiles[IDLE]);
    }
    const density = !place.deep && row && bars.density.get(row.serial);
    if (density) for (let x = x0; x < U; x++) {
      const t = view.a + (x - x0 + .5) / perSecond, share = t >= 0 && t < end ? density[Math.floor(t / end * names.bins)] / 255 : 0;
      if (share > 0) hatch(x, Y1 - Math.max(2, Math.round(share * high)), x + 1, Y1, theme.tiles[UNKNOWN]);
    }
    if (l < 0) return;
    const stop = bars.first[l + 1], {start, end: ends, sums, used} = bars, sumsOfMatches = bars.matches && bars.matches.sums;
    const wide = 3 * scale, thin = Math.max(1, Math.round(1.5 * scale)), line = Y0 + Math.round(high / 2);
    const each = letter((place.deep ? "10px " : "11px ") + MONO);
    let k = above(bars.first[l], stop, j => ends[j] > view.a), x = x0;
    while (k < stop && x < U) {
      const from = at(start[k]), to = at(ends[k]);
      if (from >= U) {
        if (!hidden[QUEUED] && bars.wait[k] > 0) queueLine(k, at, x, U, line, thin, l);
        break;
      }
      if (from >= x + 1) {                              // nothing here; where the next one begins, if it is not for the queue
        if (!hidden[QUEUED] && bars.wait[k] > 0) queueLine(k, at, x, Math.round(from), line, thin, l);
        x = Math.floor(from);
      }
      if (to - from >= wide) {
        const X0 = Math.max(x, Math.round(from)), whole = Math.round(to), gap = whole - Math.round(from) >= 4 * scale ? Math.max(1, Math.round(scale)) : 0;
        const X1 = Math.min(U, whole - gap);
        for (const s of used) amounts[s] = sums[s][k + 1] - sums[s][k];
        const faded = sumsOfMatches && sumsOfMatches[k + 1] === sumsOfMatches[k];
        if (X1 > X0) {
          column(X0, X1, Y0, Y1, amounts, ends[k] - start[k], faded ? theme.faded : theme.tiles);
          const label = X1 - X0 > 24 * scale && labelOf(k, X0 / scale, X1 / scale, each);
          if (label) {                                  // behind letters the colours are plain: hatching would run through them
            label.faded = faded || !used.some(s => amounts[s] > 0 && !hidden[s]);
            label.y = place.y + place.high / 2 + TOP - view.scroll + .5;
            label.deep = place.deep;
            labels.push(label);
            const kept = [clipTop, clipBottom], middle = (Y0 + Y1) / 2, half = Math.round((place.deep ? 5.5 : 7) * scale);
            if (!faded) {
              clipTop = Math.max(clipTop, Math.round(middle - half)); clipBottom = Math.min(clipBottom, Math.round(middle + half));
              column(Math.max(X0, Math.round((label.x - 2) * scale)), Math.min(X1, Math.round((label.x + label.text.length * each + 2) * scale)), Y0, Y1, amounts, ends[k] - start[k], theme.flat);
              [clipTop, clipBottom] = kept;
            }
          }
        }
        x = Math.max(x, Math.min(U, whole));
        k++;
        continue;
      }
      // Bars narrower than three pixels: what the time of this one pixel was spent at, whichever bars that was.
      const t0 = view.a + (x - x0) / perSecond, t1 = view.a + (x + 1 - x0) / perSecond, begun = k;
      for (const s of used) before[s] = bars.spent(s, k, t0);
      let last = k, step = 1;                           // the last bar that begins in it: by leaps, then by halves
      while (last + step < stop && start[last + step] < t1) { last += step; step *= 2 }
      last = above(last + 1, Math.min(stop, last + step + 1), j => start[j] >= t1) - 1;
      let sum = 0;
      for (const s of used) sum += amounts[s] = Math.max(0, bars.spent(s, last, t1) - before[s]);
      const pixelTime = t1 - t0;
      if (sum > 0) {
        const least = pixelTime / 3;                    // lower could not be seen
        const faded = sumsOfMatches && sumsOfMatches[last + 1] === sumsOfMatches[begun];
        if (sum < least && start[last] >= t0) for (const s of used) amounts[s] *= least / sum;
        column(x, x + 1, Y0, Y1, amounts, Math.max(pixelTime, sum), faded ? theme.faded : theme.tiles);
      }
      x++;
      k = ends[last] > t1 ? last : last + 1;
    }
  }
  const labels = [];
  function labelOf(k, x0, x1, each) {                   // the call, or its arguments if only they have room, or its beginning
    const mark = bars.isTask(k) && bars.kind[k] !== OK ? 19 : 4, fit = Math.floor((x1 - x0 - mark - 3) / each), text = bars.text(k);
    if (fit < 1) return null;
    const at = text.indexOf("("), inner = at > 0 && text.endsWith(")") ? text.slice(at + 1, -1) : "";
    const shown = text.length <= fit ? text : inner && inner.length <= fit ? inner : fit >= 9 ? text.slice(0, fit - 1) + "…" : "";
    return shown ? {text: shown, x: x0 + mark} : null;
  }
  function queueLine(k, at, x, to, line, thin, l) {     // where its worker was at nothing else: elsewhere other bars stand
    const from = Math.max(x, Math.round(at(bars.start[k] - bars.wait[k])));
    if (to > from) for (let y = Math.max(clipTop, line - thin); y < Math.min(V, line + thin); y++) data.fill(theme.queued, y * U + from, y * U + Math.min(U, to));
  }

  function ticks() {
    const room = Math.max(1, (width - left) / 110), raw = (view.b - view.a) / room, size = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map(m => m * size).find(step => step >= raw);
  }

  let queued = false;
  function later() { if (!queued) { queued = true; requestAnimationFrame(() => { if (queued) draw() }) } }

  function draw() {
    queued = false;
    const began = performance.now(), x0 = Math.round(left * scale), perPixel = (view.b - view.a) / (U - x0), D = value => Math.round(value * scale);
    data.fill(theme.pixels.back);
    // strips
    clipTop = 0; clipBottom = V;
    let y = GAP;
    for (const strip of STRIPS) {
      const bottom = D(y + strip.high), high = D(strip.high);
      fill(x0, D(y), U, bottom, theme.pixels.band);
      for (let x = x0; x < U; x++) {
        const t = view.a + (x - x0) * perPixel;
        if (t + perPixel < 0 || t > end) continue;
        const value = strip.of(t, t + perPixel), top = bottom - Math.min(high, Math.max(value > 0 ? 1 : 0, Math.round(value / strip.most * high)));
        for (let row = top; row < bottom; row++) data[row * U + x] = theme.pixels[strip.colour];
      }
      y += strip.high + GAP;
    }
    // rows
    clipTop = D(TOP);
    labels.length = 0;
    const seen = lines.filter(place => place.y + place.high > view.scroll && place.y - view.scroll < height - TOP);
    const step = ticks(), first = Math.ceil(view.a / step - 1e-9);
    seen.forEach(place => {
      const top = TOP + place.y - view.scroll;
      if (place.group) fill(0, Math.max(clipTop, D(top + 1)), U, D(top + place.high), theme.pixels.band);
    });
    for (let i = first; i * step <= view.b; i++) { const x = x0 + Math.round((i * step - view.a) / perPixel); fill(x, clipTop, x + 1, V, theme.pixels.faint) }
    for (const place of seen) {
      const top = TOP + place.y - view.scroll;
      if (!place.group) drawLine(place, D(top + (place.deep ? 1 : 2)), D(top + place.high - (place.deep ? 1 : 2)));
    }
    fill(x0 - 1, 0, x0, V, theme.pixels.faint);
    fill(0, D(TOP) - 1, U, D(TOP), theme.pixels.faint);
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.putImageData(image, 0, 0);
    g.setTransform(scale, 0, 0, scale, 0, 0);
    overlay(seen, step, first);
    later.took = performance.now() - began;
    return later.took;
  }

  const SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif", MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";
  const widths = new Map();
  function letter(font) {                               // of a monospaced font
    if (!widths.has(font)) { g.font = font; widths.set(font, g.measureText("0000000000").width / 10) }
    return widths.get(font);
  }
  function cut(text, room) {                            // what of a text has room, in the font that is set
    if (g.measureText(text).width <= room) return text;
    const kept = above(0, text.length, n => g.measureText(text.slice(0, n + 1) + "…").width > room);
    return kept ? text.slice(0, kept) + "…" : "";
  }

  function overlay(seen, step, first) {
    const at = t => left + (t - view.a) / (view.b - view.a) * (width - left);
    g.textBaseline = "middle";
    g.textAlign = "right";
    g.font = "12px " + SANS;
    let y = GAP;
    for (const strip of STRIPS) {
      g.fillStyle = theme.fore; g.fillText(strip.name, left - 34, y + strip.high / 2);
      g.fillStyle = theme.muted; g.font = "10px " + SANS;
      g.fillText(strip.percent ? Math.round(strip.most * 100) : Math.round(strip.most), left - 5, y + 7);
      g.fillText("0", left - 5, y + strip.high - 5);
      g.font = "12px " + SANS;
      y += strip.high + GAP;
    }
    g.textAlign = "center"; g.font = "11px " + SANS;
    for (let i = first; i * step <= view.b + step * 1e-9; i++) {
      const x = at(i * step), text = i === 0 ? "0 s" : moment(i * step, step), half = g.measureText(text).width / 2;
      g.fillStyle = theme.faint; g.fillRect(Math.round(x), TOP - 6, 1, 6);
      g.fillStyle = theme.muted;
      if (x + half <= width - 2) g.fillText(text, Math.max(left + half + 2, x), TOP - 14);
    }
    g.save();
    g.beginPath(); g.rect(0, TOP, width, height - TOP); g.clip();
    for (const place of seen) names_(place);
    g.beginPath(); g.rect(left, TOP, width - left, height - TOP); g.clip();
    words();
    for (const place of seen) if (place.line >= 0) marks(place, at);
    if (hovered >= 0 && hovered !== selected) outline(hovered, at, 1);
    if (selected >= 0) { arrow(selected, at); outline(selected, at, 2) }
    g.restore();
    if (total > height - TOP) {                         // where in the rows this is
      const room = height - TOP, size = Math.max(24, room * room / total), top = TOP + (room - size) * view.scroll / (total - room);
      g.fillStyle = theme.muted; g.globalAlpha = .55;
      g.beginPath(); g.roundRect(width - 8, top + 2, 6, size - 4, 3); g.fill();
      g.globalAlpha = 1;
    }
    if (range) { const [x, z] = [at(range[0]), at(range[1])].sort((p, q) => p - q); g.fillStyle = theme.accent; g.globalAlpha = .18; g.fillRect(x, 0, z - x, height); g.globalAlpha = 1 }
    if (cursor !== null && !range) { g.fillStyle = theme.fore; g.globalAlpha = .35; g.fillRect(Math.round(at(cursor)), 0, 1, height); g.globalAlpha = 1 }
    if (!bars.count && !bars.density.size) { g.fillStyle = theme.muted; g.textAlign = "center"; g.font = "14px " + SANS; g.fillText("No task was recorded.", (left + width) / 2, TOP + Math.min(60, (height - TOP) / 2)) }
  }

  function cutFront(text, room) {                       // workers' names differ at the end
    if (g.measureText(text).width <= room) return text;
    const from = above(1, text.length, n => g.measureText("…" + text.slice(n)).width <= room);
    return from < text.length ? "…" + text.slice(from) : "";
  }

  function names_(place) {
    const middle = TOP + place.y - view.scroll + place.high / 2;
    if (place.group) {
      g.textAlign = "left"; g.fillStyle = theme.muted; g.font = "10px " + SANS;
      g.fillText(folded.has(place.group.key) ? "▸" : "▾", 8, middle + .5);
      g.fillStyle = theme.fore; g.font = "600 12px " + SANS;
      g.fillText(cut(place.group.title + (folded.has(place.group.key) ? `  (${many(place.group.rows.length, "row")})` : ""), width - 40), 22, middle + .5);
      return;
    }
    if (place.deep) return;
    const sums = perRow.get(place.row.serial), life = place.row.end - place.row.begin;
    const figures = sums.tasks ? `${sums.tasks.toLocaleString("en")} · ${percent(Math.min(1, sums.busy / life))}` : "";
    g.font = "11px " + SANS; g.textAlign = "right"; g.fillStyle = theme.muted;
    const room = left - 22 - 8, size = left > 150 ? g.measureText(figures).width : 0;
    if (size) g.fillText(figures, left - 8, middle + .5);
    g.font = "12px " + SANS; g.textAlign = "left"; g.fillStyle = theme.fore;
    g.fillText(cutFront(place.row.name || `row ${place.row.serial}`, room - size - (size ? 8 : 0)), 22, middle + .5);
  }

  function words() {
    g.textAlign = "left";
    for (const deep of [false, true]) {                 // setting a font takes longer than drawing with it
      g.font = (deep ? "10px " : "11px ") + MONO;
      for (const label of labels) if (!!label.deep === deep) { g.fillStyle = label.faded ? theme.muted : "#0b0e11"; g.fillText(label.text, label.x, label.y) }
    }
  }
  function marks(place, at) {                           // of what went wrong
    const l = place.line, top = TOP + place.y - view.scroll, middle = top + place.high / 2 + .5;
    const perSecond = (width - left) / (view.b - view.a);
    // marks: however narrow the bar, but not over one another
    const from = above(0, bars.bad.length, j => bars.line[bars.bad[j]] > l || bars.line[bars.bad[j]] === l && bars.end[bars.bad[j]] > view.a);
    let free = -1e9, size = Math.min(15, place.high - 5);
    g.textAlign = "center"; g.font = `${size - 3}px ${SANS}`;
    for (let j = from; j < bars.bad.length && bars.line[bars.bad[j]] === l && bars.start[bars.bad[j]] < view.b; j++) {
      const i = bars.bad[j], x = Math.max(left, at(bars.start[i])) + 1;
      if (x < free) {                                   // by leaps: of a thousand in a pixel one is drawn
        const t = view.a + (free - left) / perSecond;
        j = above(j, bars.bad.length, m => bars.line[bars.bad[m]] > l || bars.start[bars.bad[m]] >= t) - 1;
        continue;
      }
      if (bars.matches && bars.matches.sums[i + 1] === bars.matches.sums[i]) continue;
      g.fillStyle = theme.mark; g.beginPath(); g.roundRect(x, middle - .5 - size / 2, size, size, 3); g.fill();
      g.fillStyle = theme["mark-text"]; g.fillText(MARKS[bars.kind[i]], x + size / 2, middle + .5);
      free = x + size + 1;
    }
  }
  const scratch = new Float64Array(states.length);

  function box(i) {                                     // where a bar is, in CSS pixels of the canvas
    const place = placeOf(bars.line[i]);
    if (!place) return null;
    const at = t => left + (t - view.a) / (view.b - view.a) * (width - left), top = TOP + place.y - view.scroll, inset = place.deep ? 1 : 2;
    return {x: at(bars.start[i]), y: top + inset, width: at(bars.end[i]) - at(bars.start[i]), height: place.high - 2 * inset};
  }
  function outline(i, at, thick) {
    const b = box(i);
    if (!b) return;
    const x0 = Math.max(left - 5, b.x), x1 = Math.min(width + 5, b.x + b.width);
    if (x1 < left || x0 > width) return;
    g.strokeStyle = theme.fore; g.lineWidth = thick;
    g.strokeRect(x0 - thick / 2 + .0, b.y - thick / 2, Math.max(2, x1 - x0) + thick - 1, b.height + thick);
  }
  function rowY(serial) {                               // the middle of a row, or of the edge that it is beyond
    const place = lines.find(p => p.row && p.row.serial === serial && !p.deep);
    return place ? Math.max(TOP + 3, Math.min(height - 3, TOP + place.y - view.scroll + place.high / 2)) : null;
  }
  function arrow(i, at) {                               // from whoever submitted it, when that was; and the whole time it was queued
    const b = box(i);
    if (!b || !(bars.wait[i] >= 0) || !bars.isTask(i)) return;
    const x0 = at(bars.start[i] - bars.wait[i]), x1 = b.x, y1 = b.y + b.height - 4;
    g.lineCap = "round";
    const y0 = bars.submitter[i] ? rowY(bars.submitter[i] - 1) : null;
    for (const [colour, thick] of [[theme.back, 5], [theme.accent, 2.5]]) {
      g.strokeStyle = colour; g.lineWidth = thick; g.fillStyle = colour;
      g.beginPath(); g.moveTo(x0, y1); g.lineTo(Math.max(x0, x1 - 2), y1); g.stroke();
      g.beginPath(); g.arc(x0, y1, thick, 0, 7); g.fill();
      if (y0 === null || Math.abs(y0 - y1) < 8) continue;
      const down = y1 > y0 ? 1 : -1, tip = y1 - down * 4;
      g.setLineDash(colour === theme.back ? [] : [5, 4]);
      g.beginPath(); g.moveTo(x0, y0); g.lineTo(x0, tip - down * 5); g.stroke();
      g.setLineDash([]);
      g.beginPath(); g.arc(x0, y0, thick + .5, 0, 7); g.fill();
      const wing = colour === theme.back ? 7 : 5;
      g.beginPath(); g.moveTo(x0, tip + down); g.lineTo(x0 - wing, tip - down * 8); g.lineTo(x0 + wing, tip - down * 8); g.closePath(); g.fill();
    }
  }

  // ------------------------------------------------------------ moving

  function limitView() {
    const least = Math.max(1e-8, end * 1e-9), most = end * 1.04, margin = end * .02;
    let size = Math.max(least, Math.min(most, view.b - view.a));
    if (!Number.isFinite(size)) { [view.a, view.b] = whole; size = view.b - view.a }
    view.a = Math.max(-margin, Math.min(end + margin - size, view.a));
    view.b = view.a + size;
    view.scroll = Math.max(0, Math.min(total - (height - TOP), view.scroll));
  }
  let saving = 0;
  function moved() {
    limitView();
    later();
    clearTimeout(saving);
    saving = setTimeout(save, 250);
  }
  let ownHash = "";
  function save() {
    const digits = Math.max(3, Math.min(9, Math.ceil(-Math.log10(view.b - view.a)) + 3)), all = view.a <= 0 && view.b >= end;
    const top = lines.find(place => place.row && place.y >= view.scroll - 1), parts = [];
    if (!all) parts.push(`t=${view.a.toFixed(digits)},${view.b.toFixed(digits)}`);
    if (view.scroll > 0 && top) parts.push(`row=${top.row.serial}`);
    ownHash = parts.length ? "#" + parts.join("&") : "";
    try { history.replaceState(null, "", ownHash || location.pathname + location.search) } catch { /* some hosts of pages forbid it: then there is no link to this place */ }
  }
  function restore() {
    const hash = location.hash;
    if (hash === ownHash && hash) return;
    const parts = new URLSearchParams(hash.slice(1)), times = (parts.get("t") || "").split(",").map(Number);
    if (times.length === 2 && times.every(Number.isFinite) && times[1] > times[0]) [view.a, view.b] = times;
    const row = parts.get("row"), place = row !== null && row !== "" && lines.find(p => p.row && p.row.serial === Number(row));
    if (place) view.scroll = Math.max(0, place.y - HEAD);
    limitView();
    later();
  }
  function zoom(factor, t = (view.a + view.b) / 2) { view.a = t - (t - view.a) * factor; view.b = t + (view.b - t) * factor; moved() }
  function pan(share) { const by = (view.b - view.a) * share; view.a += by; view.b += by; moved() }
  function showAll() { [view.a, view.b] = whole; moved() }
  function showBar(i, close) {
    const unfolded = groups.find(group => folded.has(group.key) && group.rows.some(row => row.serial === bars.row(i)));
    if (unfolded) { folded.delete(unfolded.key); resize() }
    const size = view.b - view.a, length = bars.end[i] - bars.start[i];
    if (close) { view.a = bars.start[i] - length * .4; view.b = bars.end[i] + length * .4 }
    else if (bars.end[i] < view.a || bars.start[i] > view.b || length / size < 3 / (width - left)) {
      const now = length / size < 3 / (width - left) ? Math.max(length * 40, 1e-7) : size, middle = (bars.start[i] + bars.end[i]) / 2;
      view.a = middle - now / 2; view.b = middle + now / 2;
    }
    const place = placeOf(bars.line[i]);
    if (place.y < view.scroll || place.y + place.high > view.scroll + height - TOP) view.scroll = place.y - (height - TOP) / 2;
    moved();
  }

  const second = x => view.a + (x - left) / (width - left) * (view.b - view.a);
  function barAt(x, y) {
    if (x < left || y < TOP) return -1;
    const place = lines.find(p => y >= TOP + p.y - view.scroll && y < TOP + p.y - view.scroll + p.high);
    if (!place || place.line < 0) return -1;
    const near = 2 * (view.b - view.a) / (width - left), t = second(x), i = bars.at(place.line, t);
    if (i >= 0) return i;
    const k = above(bars.first[place.line], bars.first[place.line + 1], j => bars.end[j] > t - near);   // as near as two pixels will do
    return k < bars.first[place.line + 1] && bars.start[k] <= t + near ? k : -1;
  }

  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 24 : event.deltaMode === 2 ? 200 : 1, dx = event.deltaX * unit, dy = event.deltaY * unit;
    if (event.shiftKey || event.offsetX < left) { view.scroll += dy || dx; moved() }
    else if (Math.abs(dx) > Math.abs(dy)) pan(dx / (width - left));
    else zoom(1.0018 ** Math.max(-240, Math.min(240, dy)), second(event.offsetX));
    hover(event);
  }, {passive: false});

  let drag = null;
  canvas.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const {offsetX: x, offsetY: y} = event, bar = total > height - TOP && x > width - 12 && y > TOP;
    const kind = bar ? "bar" : x >= left && (event.shiftKey || y >= stripsHeight && y < TOP) ? "range" : "move";
    drag = {kind, x, y, a: view.a, b: view.b, scroll: view.scroll, far: false};
  });
  canvas.addEventListener("pointermove", event => {
    if (!drag) return hover(event);
    const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
    if (Math.abs(dx) + Math.abs(dy) > 3) drag.far = true;
    if (!drag.far) return;
    leave();
    if (drag.kind === "range") { range = [second(drag.x), second(Math.max(left, event.offsetX))]; return later() }
    if (drag.kind === "bar") view.scroll = drag.scroll + dy * total / (height - TOP);
    else {
      canvas.style.cursor = "grabbing";
      const by = -dx / (width - left) * (drag.b - drag.a);
      if (drag.x >= left) { view.a = drag.a + by; view.b = drag.b + by }
      view.scroll = drag.scroll - dy;
    }
    moved();
  });
  canvas.addEventListener("pointerup", event => {
    const was = drag;
    drag = null;
    canvas.style.cursor = "";
    if (range) { [view.a, view.b] = range[0] < range[1] ? range : [range[1], range[0]]; range = null; return moved() }
    if (!was || was.far) return;
    const y = event.offsetY, place = lines.find(p => p.group && y >= TOP && y >= TOP + p.y - view.scroll && y < TOP + p.y - view.scroll + p.high);
    if (place) { if (!folded.delete(place.group.key)) folded.add(place.group.key); resize(); return moved() }
    select(barAt(event.offsetX, y));
  });
  canvas.addEventListener("pointercancel", () => { drag = range = null; later() });
  canvas.addEventListener("dblclick", event => { const i = barAt(event.offsetX, event.offsetY); if (i >= 0) { select(i); showBar(i, true) } });
  canvas.addEventListener("pointerleave", () => { cursor = null; leave(); later() });

  function leave() { hovered = -1; $("tip").hidden = true }
  function hover(event) {
    const {offsetX: x, offsetY: y} = event, tip = $("tip"), was = hovered;
    cursor = x >= left ? second(x) : null;
    hovered = barAt(x, y);
    later();
    canvas.style.cursor = hovered >= 0 ? "pointer" : x >= left && y >= stripsHeight && y < TOP ? "col-resize" : x >= left && y > TOP ? "grab" : "default";
    if (hovered >= 0) { if (was !== hovered || tip.hidden) tip.replaceChildren(...tipOf(hovered)) }
    else if (x >= left && y < stripsHeight) tip.replaceChildren(...tipOfStrips(cursor));
    else if (x < left && y > TOP && rowTip(y)) tip.replaceChildren(...rowTip(y));
    else { tip.hidden = true; return }
    tip.hidden = false;
    const size = tip.getBoundingClientRect(), X = event.clientX + 14, Y = event.clientY + 18;
    tip.style.left = Math.max(4, X + size.width > innerWidth - 4 ? event.clientX - size.width - 10 : X) + "px";
    tip.style.top = Math.max(4, Y + size.height > innerHeight - 4 ? event.clientY - size.height - 10 : Y) + "px";
  }
  function tipOfStrips(t) {
    const w = (view.b - view.a) / (width - left);
    return [make("div", moment(t, w), "dim"), ...STRIPS.map(strip => make("div", strip.text(strip.of(t, t + w))))];
  }
  function rowTip(y) {
    const place = lines.find(p => p.row && y >= TOP + p.y - view.scroll && y < TOP + p.y - view.scroll + p.high);
    if (!place) return null;
    const sums = perRow.get(place.row.serial);
    return [make("b", place.row.name), make("div", identity(place.row), "dim"),
      make("div", `${many(sums.tasks, "attempt")}, ${percent(Math.min(1, sums.busy / (place.row.end - place.row.begin)))} of its time`)];
  }
  const identity = row => [row.kind === "process" ? "" : `ident ${row.ident}`, row.native_id ? `native ${row.native_id}` : "", `pid ${row.pid}`,
    row.boot ? `took ${duration(row.boot)} to start` : ""].filter(Boolean).join(", ");
  function partsOf(i) {                                 // [state, seconds, text] of what is known, largest first
    const parts = bars.split(i, new Float64Array(states.length));
    return ORDER.filter(s => parts[s] > 0 && parts[s] >= 1e-4 * (bars.end[i] - bars.start[i])).sort((x, y) => parts[y] - parts[x])
      .map(s => [s, parts[s], (s === GIL || s === COMPUTING && bars.shares[i] > 1 ? "≈ " : "") + duration(parts[s])]);
  }
  function outcome(i) {
    const mark = MARKS[bars.kind[i]];
    return bars.kind[i] === OK ? "" : `${mark} ${names.outcomes[bars.kind[i]]}`;
  }
  function tipOf(i) {
    const found = [make("b", bars.text(i))], row = rowOf.get(bars.row(i));
    if (bars.isTask(i)) {
      if (bars.kind[i] !== OK) found.push(make("div", outcome(i) + (names.errors[i] ? `: ${names.errors[i].slice(0, 160)}` : ""), "bad"));
      found.push(make("div", `${duration(bars.length[i])} on ${row.name}` + (bars.attempt[i] > 1 ? `, attempt ${bars.attempt[i]}` : "")));
      for (const [s, , text] of partsOf(i)) {
        const part = make("div", undefined, "part");
        part.append(swatch(theme, s, 12, 10), make("span", states[s].name), make("span", text));
        found.push(part);
      }
      if (bars.wait[i] >= 0) found.push(make("div", `queued for ${duration(bars.wait[i])} before`, "dim"));
    } else {
      const s = bars.kind[i] - names.span, [holder, site] = names.places[i] || ["", ""], part = make("div", undefined, "part");
      part.append(swatch(theme, s, 12, 10), make("span", states[s].name), make("span", duration(bars.length[i])));
      found.push(part);
      if (holder) found.push(make("div", `held by ${holder}`));
      if (site) found.push(make("div", site, "dim"));
    }
    found.push(make("div", `from ${moment(bars.start[i], bars.length[i] / 100)}`, "dim"));
    return found;
  }

  // ------------------------------------------------------------ selecting, details

  function select(i) {
    selected = i;
    const details = $("details");
    details.hidden = i < 0;
    if (i >= 0) details.replaceChildren(...detailsOf(i));
    mark();
    resize();
  }
  function button(text, label, act) {
    const found = make("button", text);
    found.type = "button";
    if (label) found.setAttribute("aria-label", label);
    found.addEventListener("click", act);
    return found;
  }
  function detailsOf(i) {
    const row = rowOf.get(bars.row(i)), title = make("h2", bars.text(i)), step = Math.max(1e-9, bars.length[i] / 1000), at = t => moment(t, step);
    const buttons = make("div", undefined, "buttons");
    buttons.append(button("Zoom to it", "", () => showBar(i, true)), button("×", "Close", () => select(-1)));
    const found = [title, buttons], when = [];
    if (bars.isTask(i)) {
      const work = names.works[bars.work[i]];
      if (bars.kind[i] !== OK) title.append(make("span", outcome(i), "tag"));
      if (bars.wait[i] >= 0) when.push(`queued ${at(bars.start[i] - bars.wait[i])}`);
      when.push(`started ${at(bars.start[i])}`, bars.kind[i] === UNFINISHED ? `not finished at ${at(bars.end[i])}` : `finished ${at(bars.start[i] + bars.length[i])}`);
      const parts = partsOf(i);
      found.push(make("p", when.join("  ·  ") + (bars.wait[i] >= 0 ? `  ·  queued for ${duration(bars.wait[i])}` : "")));
      const split = make("div", undefined, "split");
      split.setAttribute("aria-hidden", "true");
      for (const [s, part] of parts) { const piece = make("i"); piece.style.flex = `${part} 0 0`; piece.style.background = states[s].colour; split.append(piece) }
      found.push(split, make("p", `${duration(bars.length[i])} = ` + parts.map(([s, , text]) => `${states[s].name} ${text}`).join("  +  ")));
      const unknown = [["computing", bars.cpu], ["GIL", names.host.has_gil ? bars.gil : [0]], ["lock", bars.lock], ["CPU queue", bars.runqueue]].filter(([, c]) => Number.isNaN(c[c.length > 1 ? i : 0])).map(([n]) => n);
      if (unknown.length && unknown.length < 4) found.push(make("p", `not known of this one: ${unknown.join(", ")}; it is in what is waiting`, "dim"));
      if (bars.shares[i] > 1) found.push(make("p", `CPU time is an equal share of a batch of ${bars.shares[i]}`, "dim"));
      const by = bars.submitter[i] ? rowOf.get(bars.submitter[i] - 1) : null;
      found.push(make("p", [work ? `${work.name}, input ${bars.number[i]}` : `input ${bars.number[i]}`, `attempt ${bars.attempt[i]}`, by ? `submitted by ${by.name}` : ""].filter(Boolean).join("  ·  "), "dim"));
      if (names.errors[i]) found.push(make("pre", names.errors[i]));
    } else {
      const [holder, site] = names.places[i] || ["", ""];
      found.push(make("p", `${states[bars.kind[i] - names.span].name} from ${at(bars.start[i])} to ${at(bars.start[i] + bars.length[i])}, ${duration(bars.length[i])}`));
      if (holder || site) found.push(make("p", [holder && `held by ${holder}`, site].filter(Boolean).join("  ·  "), "dim"));
    }
    found.push(make("p", `${row.name}, ${identity(row)}`, "dim"));
    return found;
  }
  function neighbour(by) {
    if (selected < 0) { const t = view.a, place = lines.find(p => p.line >= 0 && p.y >= view.scroll); if (place) { const i = above(bars.first[place.line], bars.first[place.line + 1] - 1, j => bars.end[j] > t); select(i); showBar(i) } return }
    const i = selected + by;
    if (i >= bars.first[bars.line[selected]] && i < bars.first[bars.line[selected] + 1]) { select(i); showBar(i) }
  }

  // ------------------------------------------------------------ searching

  let current = -1;
  function search(text) {
    query = text.trim().toLowerCase();
    current = -1;
    bars.matches = null;
    if (query) {
      const found = [], sums = new Uint32Array(bars.count + 1);
      for (let i = 0; i < bars.count; i++) {
        const is = bars.text(i).toLowerCase().includes(query) || names.errors[i] !== undefined && names.errors[i].toLowerCase().includes(query);
        if (is) found.push(i);
        sums[i + 1] = sums[i] + is;
      }
      found.sort((x, y) => bars.start[x] - bars.start[y]);
      bars.matches = {found, sums};
    }
    said();
    if (tab === "tasks") table();
    later();
  }
  function said() {
    const found = bars.matches && bars.matches.found;
    $("found").textContent = !found ? "" : !found.length ? "none" : current < 0 ? `${found.length.toLocaleString("en")} found` : `${current + 1} of ${found.length.toLocaleString("en")}`;
    $("previous").disabled = $("next").disabled = !found || !found.length;
  }
  function go(by) {
    const found = bars.matches && bars.matches.found;
    if (!found || !found.length) return;
    current = current < 0 ? (by > 0 ? 0 : found.length - 1) : (current + by + found.length) % found.length;
    select(found[current]);
    showBar(found[current]);
    said();
  }
  $("query").addEventListener("input", () => search($("query").value));
  $("query").addEventListener("keydown", event => {
    if (event.key === "Enter") { event.preventDefault(); go(event.shiftKey ? -1 : 1) }
    if (event.key === "Escape") { event.preventDefault(); $("query").value = ""; search(""); canvas.focus() }
  });
  $("next").addEventListener("click", () => go(1));
  $("previous").addEventListener("click", () => go(-1));
  $("whole").addEventListener("click", showAll);
  $("ask").addEventListener("click", () => $("help").showModal());
  $("close").addEventListener("click", () => $("help").close());

  addEventListener("keydown", event => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || at.matches("input, select, textarea")) return;
    const inTable = at.closest("#below"), key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (inTable && /^(Arrow|Page|Home|End)/.test(key)) return;
    const act = {
      w: () => zoom(1 / 1.3), "+": () => zoom(1 / 1.3), "=": () => zoom(1 / 1.3), s: () => zoom(1.3), "-": () => zoom(1.3), "_": () => zoom(1.3),
      a: () => pan(-.15), ArrowLeft: () => pan(-.15), d: () => pan(.15), ArrowRight: () => pan(.15),
      ArrowUp: () => { view.scroll -= rowHeight; moved() }, ArrowDown: () => { view.scroll += rowHeight; moved() },
      PageUp: () => { view.scroll -= height - TOP - rowHeight; moved() }, PageDown: () => { view.scroll += height - TOP - rowHeight; moved() },
      "0": showAll, Home: showAll, "/": () => $("query").focus(), "?": () => $("help").showModal(),
      f: () => { if (selected >= 0) showBar(selected, true) }, j: () => neighbour(1), k: () => neighbour(-1),
      Escape: () => { $("query").value = ""; search(""); range = drag = null; select(-1); leave() },
    }[key];
    if (act) { event.preventDefault(); leave(); cursor = null; act() }
  });

  // ------------------------------------------------------------ legend

  function legend() {
    const box = $("legend"), shown = new Set(bars.used), focus = box.contains(document.activeElement) && document.activeElement.dataset.state;
    if (rowOf.size) shown.add(IDLE);
    if (STRIPS.some(strip => strip.name === "queued")) shown.add(QUEUED);
    if (bars.density.size) shown.add(UNKNOWN);
    const items = states.flatMap((state, s) => {
      if (!shown.has(s)) return [];
      const item = button("", "", () => { hidden[s] = !hidden[s]; legend(); later() });
      item.append(swatch(theme, s, 16, 14), make("span", state.name + (s === GIL ? " ≈" : "")));
      item.title = `${state.meaning}; press to ${hidden[s] ? "show" : "hide"}`;
      item.dataset.state = s;
      item.setAttribute("aria-pressed", String(!hidden[s]));
      return [item];
    });
    const marks = make("span", undefined, "marks"), layers = make("span", bars.used.some(s => s <= CPU) ? "height of a colour = share of time" : "", "layers"), kinds = new Set(bars.bad.map(i => bars.kind[i]));
    for (const [mark, text, of] of [["✗", "failed", [FAILED, TIMEOUT, CRASHED]], ["↻", "tried again", [RETRIED]], ["⊘", "cancelled", [CANCELLED]], ["…", "not finished", [UNFINISHED]]])
      if (of.some(kind => kinds.has(kind))) marks.append(make("b", mark), text);
    layers.title = "Known are sums, not in which order a task did what.";
    box.replaceChildren(...items, layers, marks);
    if (focus) box.querySelector(`[data-state="${focus}"]`)?.focus();
  }

  // ------------------------------------------------------------ tables

  const seconds = t => (Number.isNaN(t) || t === null || t === undefined ? "" : duration(t));
  const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  // a column: [title, value of a row, as text (by default the value as it is)]; numbers are on the right
  function taskTable() {
    const all = [];
    for (let i = 0; i < bars.count; i++) if (bars.isTask(i) && (!bars.matches || bars.matches.sums[i + 1] > bars.matches.sums[i])) all.push(i);
    const part = s => i => { const value = s === COMPUTING ? bars.cpu[i] : s === WAITING ? (bars.cpu[i] >= 0 ? bars.split(i, scratch)[s] : NaN) : [, , bars.lock, bars.gil, bars.runqueue][s][i]; return value };
    const columns = [["task", i => bars.text(i)], ["of", i => (names.works[bars.work[i]] || {}).name || ""], ["input", i => bars.number[i], String], ["attempt", i => bars.attempt[i], String],
      ["outcome", i => outcome(i) || "ok"], ["on", i => rowOf.get(bars.row(i)).name], ["queued", i => bars.wait[i], seconds], ["started", i => bars.start[i], t => moment(t, 1e-3)],
      ["took", i => bars.length[i], seconds], ["computing", part(COMPUTING), seconds], ["waiting", part(WAITING), seconds], ["lock", part(LOCK), seconds], ["GIL ≈", part(GIL), seconds],
      ["no CPU", part(CPU), seconds], ["error", i => names.errors[i] || ""]];
    return {rows: all, columns: columns.filter(([name, of]) => !["lock", "GIL ≈", "no CPU", "error"].includes(name) || all.some(i => of(i) > 0 || typeof of(i) === "string" && of(i))), sort: "took", bar: i => i};
  }
  function sumTable(first, keyOf) {
    const found = new Map(), parts = new Float64Array(states.length);
    for (let i = 0; i < bars.count; i++) {
      if (!bars.isTask(i)) continue;
      const key = keyOf(i);
      if (!found.has(key)) found.set(key, {key, n: 0, total: 0, failed: 0, times: [], parts: new Float64Array(states.length), queued: 0, waits: 0});
      const sums = found.get(key);
      sums.n++; sums.total += bars.length[i]; sums.times.push(bars.length[i]); sums.failed += [FAILED, TIMEOUT, CRASHED].includes(bars.kind[i]);
      if (bars.wait[i] >= 0) { sums.queued += bars.wait[i]; sums.waits++ }
      bars.split(i, parts);
      for (let s = 0; s < parts.length; s++) sums.parts[s] += parts[s];
    }
    for (const sums of found.values()) sums.times = Float64Array.from(sums.times).sort();
    const stateColumns = [[COMPUTING, "computing"], [WAITING, "waiting"], [LOCK, "lock"], [GIL, "GIL ≈"], [CPU, "no CPU"], [UNKNOWN, "not known"]].filter(([s]) => bars.used.includes(s)).map(([s, name]) => [name, r => r.parts[s], seconds]);
    return {rows: [...found.values()], columns: [...first, ["attempts", r => r.n, String], ["total", r => r.total, seconds], ["mean", r => r.total / r.n, seconds],
      ["p50", r => quantile(r.times, .5), seconds], ["p95", r => quantile(r.times, .95), seconds], ["max", r => r.times[r.times.length - 1], seconds], ...stateColumns,
      ["queued, mean", r => r.waits ? r.queued / r.waits : NaN, seconds], ["failed", r => r.failed, String]], sort: "total"};
  }
  const TABLES = {
    tasks: ["Tasks", taskTable],
    functions: ["By function", () => sumTable([["function", r => r.key]], i => bars.fn(i))],
    workers: ["Workers", () => {
      const found = sumTable([["worker", r => rowOf.get(r.key).name], ["kind", r => rowOf.get(r.key).kind], ["pid", r => rowOf.get(r.key).pid, String], ["native id", r => rowOf.get(r.key).native_id, String],
        ["busy", r => Math.min(1, perRow.get(r.key).busy / (rowOf.get(r.key).end - rowOf.get(r.key).begin)), percent]], i => bars.row(i));
      if (names.rows.some(row => row.boot)) found.columns.push(["start-up", r => rowOf.get(r.key).boot ?? NaN, seconds]);
      return found;
    }],
    errors: ["Errors", () => {
      const found = new Map();
      for (const i of bars.bad) {
        const error = names.errors[i] || "", kind = (error.match(/^[\w.]+/) || [names.outcomes[bars.kind[i]]])[0], key = kind + "\n" + bars.kind[i];
        if (!found.has(key)) found.set(key, {kind, outcome: outcome(i), n: 0, first: i, error});
        const sums = found.get(key);
        sums.n++;
        if (bars.start[i] < bars.start[sums.first]) { sums.first = i; sums.error = error }
      }
      return {rows: [...found.values()], columns: [["error", r => r.kind], ["outcome", r => r.outcome], ["times", r => r.n, String], ["first at", r => bars.text(r.first)], ["input", r => bars.number[r.first], String],
        ["when", r => bars.start[r.first], t => moment(t, 1e-3)], ["message", r => r.error]], sort: "times", bar: r => r.first};
    }],
  };
  const report = $("report"), made = {};
  let tab = "", shownRows = 100;
  if (report.textContent.trim()) TABLES.report = ["Report", null];
  function order(found, name, down) {
    const column = found.columns.find(([title]) => title === name) || found.columns[0], value = column[1];
    const keys = found.rows.map(value), text = typeof keys[0] === "string", numbers = text ? keys : Float64Array.from(keys, key => (Number.isNaN(key) ? -Infinity : key));
    const compare = text ? (x, y) => (keys[x] < keys[y] ? -1 : keys[x] > keys[y] ? 1 : 0) : (x, y) => (numbers[x] === numbers[y] ? 0 : numbers[x] < numbers[y] ? -1 : 1);
    const places = Uint32Array.from(found.rows, (_, at) => at).sort(down ? (x, y) => compare(y, x) : compare);
    found.rows = Array.from(places, at => found.rows[at]);
    found.sorted = [column[0], down];
  }
  function table(kept) {
    const panel = $("panel");
    document.body.append(report);
    $("copy").hidden = tab === "report";
    panel.setAttribute("aria-labelledby", "tab-" + tab);
    if (tab === "report") return panel.replaceChildren(report);
    const found = kept || TABLES[tab][1]();
    made.now = found;
    if (!found.sorted) order(found, found.sort, true);
    $("copy").disabled = !found.rows.length;
    if (!found.rows.length) return panel.replaceChildren(make("p", tab === "errors" ? "No errors." : query ? "No task matches." : "No tasks."));
    const element = make("table"), head = element.createTHead().insertRow(), body = element.createTBody();
    const right = found.columns.map(([, of, as]) => as !== undefined);
    found.columns.forEach(([name], c) => {
      const th = make("th"), [by, down] = found.sorted, sort = button(name + (by === name ? (down ? " ▾" : " ▴") : ""), "", () => { order(found, name, by === name ? !down : right[c]); table(found); $("panel").querySelector("th[aria-sort] button").focus() });
      th.scope = "col";
      if (right[c]) th.className = "number";
      if (by === name) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      th.append(sort);
      head.append(th);
    });
    for (const row of found.rows.slice(0, shownRows)) {
      const tr = body.insertRow();
      if (found.bar) tr.dataset.bar = found.bar(row);
      found.columns.forEach(([, of, as], c) => {
        const td = tr.insertCell(), text = as ? as(of(row)) : String(of(row));
        if (right[c]) td.className = "number";
        if (found.bar && c === 0) {
          const link = button(text, "", () => { const i = found.bar(row); select(i); showBar(i) });
          link.className = "link";
          td.append(link);
        } else td.textContent = text;
        if (text.length > 40) td.title = text;
      });
    }
    panel.replaceChildren(element);
    if (found.rows.length > shownRows) {
      const more = make("div", `${shownRows.toLocaleString("en")} of ${found.rows.length.toLocaleString("en")} `, "more");
      more.append(button("Show 400 more", "", () => { shownRows += 400; table(found) }));
      panel.append(more);
    }
    mark();
  }
  function mark() { for (const tr of $("panel").querySelectorAll("tr[data-bar]")) tr.classList.toggle("chosen", Number(tr.dataset.bar) === selected) }
  function csv() {                                      // all rows of the table that is shown; seconds and numbers as they are
    const found = made.now, cell = value => { const text = typeof value === "number" ? (Number.isNaN(value) ? "" : String(Number(value.toPrecision(9)))) : String(value); return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text };
    const unit = ([name, , as]) => (as === seconds || name === "started" || name === "when" ? name + " (s)" : name);
    return [found.columns.map(column => cell(unit(column))), ...found.rows.map(row => found.columns.map(([, of]) => cell(of(row))))].map(row => row.join(",")).join("\r\n") + "\r\n";
  }
  async function copyText(text) {
    try { await navigator.clipboard.writeText(text); return true } catch { /* not allowed for this page: the old way */ }
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
  $("copy").addEventListener("click", async () => {
    const done = await copyText(csv());
    $("copy").textContent = done ? "Copied" : "The browser did not allow it";
    setTimeout(() => $("copy").textContent = "Copy as CSV", 1500);
  });
  function choose(name) {
    tab = name;
    shownRows = 100;
    for (const one of $("tabs").children) { one.setAttribute("aria-selected", String(one.id === "tab-" + name)); one.tabIndex = one.id === "tab-" + name ? 0 : -1 }
    table();
  }
  for (const [name, [title]] of Object.entries(TABLES)) {
    const one = button(title + (name === "errors" && bars.bad.length ? ` (${bars.bad.length.toLocaleString("en")})` : ""), "", () => choose(name));
    one.id = "tab-" + name;
    one.setAttribute("role", "tab");
    one.setAttribute("aria-controls", "panel");
    $("tabs").append(one);
  }
  $("tabs").addEventListener("keydown", event => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key], all = [...$("tabs").children];
    if (!by) return;
    event.preventDefault();
    const next = all[(all.indexOf(document.activeElement) + by + all.length) % all.length];
    next.focus(); next.click();
  });

  // ------------------------------------------------------------ head

  {
    const sum = name => names.works.reduce((total, work) => total + (work[name] || 0), 0), add = (n, text, bad) => { const item = make("li"); item.append(make("b", n), text); if (bad) item.className = "bad"; $("totals").append(item) };
    const host = names.host;
    $("script").textContent = host.script ? "· " + host.script : "";
    $("host").textContent = [`Python ${host.python} (${host.has_gil ? "GIL on" : "no GIL"})`, many(host.cores, "core"), host.platform, host.name, new Date(Number(BigInt(names.zero) / 1000000n)).toISOString().slice(0, 16).replace("T", " ") + " UTC"].filter(Boolean).join(" · ");
    $("host").title = $("host").textContent;
    const begin = names.works.reduce((first, work) => Math.min(first, work.begin), Infinity), last = names.works.reduce((last, work) => Math.max(last, work.end), 0), workers = [...perRow.values()].filter(row => row.tasks).length;
    add(sum("tasks").toLocaleString("en"), sum("tasks") === 1 ? "task" : "tasks");
    if (names.works.length > 1) add(names.works.length.toLocaleString("en"), "runs");
    if (workers) add(workers.toLocaleString("en"), workers === 1 ? "worker" : "workers");
    if (names.works.length) add(duration(last - begin), "wall time");
    if (sum("wall")) add(duration(sum("wall")), "time in tasks");
    add(sum("failed").toLocaleString("en"), "failed", sum("failed") > 0);
    add(sum("retries").toLocaleString("en"), sum("retries") === 1 ? "retry" : "retries");
    for (const [name, text] of [["timeouts", "over their time"], ["crashes", "crashed"], ["cancelled", "cancelled"], ["resumed", "known from before"]]) if (sum(name)) add(sum(name).toLocaleString("en"), text);
    $("advice").textContent = names.advice;
    const notes = [];
    if (!names.complete) notes.push("This recording is not complete: it was saved while work went on, or its program was killed.");
    if (names.total > bars.count) notes.push(`${names.total.toLocaleString("en")} bars: ${bars.count.toLocaleString("en")} are drawn one by one, first what went wrong, then the longest. The rest is grey: how busy each row was with it. Tables, search, queued and CPU know the drawn ones.`);
    if (names.dropped) notes.push(`${many(names.dropped, "attempt")} of many were not kept by the recorder; the totals above contain them, picture and tables do not.`);
    if (names.dropped_spans) notes.push(`${many(names.dropped_spans, "wait")} of many were not kept by the recorder.`);
    for (const note of notes) $("notes").append(make("li", note));
    canvas.setAttribute("aria-label", `Timeline: ${many(sum("tasks"), "task")} on ${many(rowOf.size, "row")} in ${duration(end)}. The same is in the tables below. Keys: press the question mark.`);
  }

  // ------------------------------------------------------------ begin

  said();
  resize();
  restore();
  draw();
  setTimeout(() => choose("tasks"));                    // the picture first
  addEventListener("resize", resize);
  addEventListener("hashchange", restore);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resize);
  addEventListener("beforeprint", () => { document.documentElement.className = "on print"; document.body.append(report); resize(); draw() });
  addEventListener("afterprint", () => { document.documentElement.className = "on"; table(); resize() });

  // for tests and the console
  window.timeline = {bars, names, view, box, draw, zoom, showAll, csv, get selected() { return selected }, get took() { return later.took }, get left() { return left }, get top() { return TOP }};
}

if (typeof DecompressionStream === "undefined") {
  document.documentElement.className = "";
  $("report").prepend("This browser is too old to draw the timeline; browsers since 2023 do. The report as text:\n\n");
} else Promise.all([unpack("names"), unpack("bars")]).then(([names, columns]) => {
  start(JSON.parse(new TextDecoder().decode(names)), columns);
  window.timeline.opened = performance.now();
}).catch(error => {
  document.documentElement.className = "";
  $("report").prepend(`The timeline cannot be drawn: ${error}\n\n`);
  window.timeline = {error: String(error.stack)};
});

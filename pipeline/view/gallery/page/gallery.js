"use strict";

/* The page of a gallery. Its data come as scripts that call the functions of `coppice`, since a page
   from file:// may fetch nothing. Whatever is shown is set as text, never as markup. */

const coppice = (() => {
  const BASE = new URL(".", document.currentScript.src).href;
  const PER_PAGE = 72, PAIRS_PER_PAGE = 24, BINS = 20, CELLS = 10;
  const MOST_OPTIONS = 40, MOST_HISTOGRAMS = 8, CHUNKS_KEPT = 12;
  const FACETS = [
    ["run", "Run"], ["status", "Status"], ["kept", "In the set"], ["dropped_as", "Dropped as"],
    ["verdict", "Critic"], ["revised", "Drawn again"], ["dead_reason", "Dead"], ["category", "Category"],
  ];
  const YES_NO = {
    revised: ["drawn again", "as first drawn"], kept: ["kept", "dropped"],
  };

  let about = null; // what view.js says
  let size = 0; // traces
  const columns = new Map(); // values by column, a list of traces each
  const bins = new Map(); // by column of numbers: its bounds, and how often each bin occurs
  const chunks = new Map(); // of what the strip shows: promises by number
  const arrivals = new Map(); // by number: what to call when a chunk has come
  const state = { text: "", chosen: new Map(), ranges: new Map(), sort: "rank", view: "grid", page: 0 };
  let shown = []; // indices of traces, filtered and in order
  let at = -1; // the trace whose strip is open
  let searched = []; // what the text filter looks at

  /* Elements */

  const get = (id) => document.getElementById(id);

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  }

  function said(tag, className, text) {
    const element = make(tag, className, text);
    element.dir = "auto";
    return element;
  }

  /** A part of a sheet; a word in its place where there is no picture. */
  function picture(run, folder, sheet, slot, across, label) {
    const box = make("span", `picture${run.crisp ? " crisp" : ""}`);
    if (sheet === null) {
      box.append(make("em", "", label));
      return box;
    }
    const inner = make("i");
    inner.style.backgroundImage = `url("${BASE}${folder}/${String(sheet).padStart(5, "0")}.webp")`;
    inner.style.setProperty("--columns", across);
    inner.style.setProperty("--x", slot % across);
    inner.style.setProperty("--y", Math.floor(slot / across));
    box.role = "img";
    box.ariaLabel = label;
    box.append(inner);
    return box;
  }

  function number(value) {
    if (typeof value !== "number") return String(value);
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
  }

  function chip([name, cell]) {
    const element = make("span", "chip", `${name} `, make("b", "", make("bdi", "", number(cell))));
    element.title = `${name}: ${cell}`;
    return element;
  }

  /** The values that scorers came to, and on demand all that they said. */
  function chips(list) {
    const values = list.filter(([name]) => name.endsWith(".value")), more = list.filter((pair) => !values.includes(pair));
    const rest = more.length ? make("details", "said", make("summary", "", "all scores"), make("div", "chips", ...more.map(chip))) : null;
    return [values.length ? make("div", "chips", ...values.map(chip)) : null, rest].filter((child) => child !== null);
  }

  /* Data */

  const value = (name, trace) => columns.get(name)[trace];
  const isNumber = (name) => about.numbers.includes(name);

  function addScript(name) {
    const script = document.createElement("script");
    script.src = safe ? safe.createScriptURL(name) : checked(name);
    script.onerror = () => tell(`${name} cannot be read: is the gallery whole?`);
    document.head.append(script);
    script.remove();
  }

  function checked(name) {
    if (!/^(grid|traces)-\d{5}\.js$/.test(name)) throw new Error(`no chunk: ${name}`);
    return BASE + name;
  }

  const safe = globalThis.trustedTypes?.createPolicy("coppice", { createScriptURL: checked });

  function tell(text) {
    get("notes").append(said("p", "note", text));
  }

  function view(facts) {
    about = facts;
    document.title = `${facts.title} - Coppice`;
    get("title").textContent = facts.title;
    get("about").textContent = facts.about;
    facts.notes.forEach(tell);
    const names = ["run", "rank", "thumb", "rollout", ...facts.words, ...facts.flags, ...facts.numbers, "dropped_as"];
    for (const name of names) columns.set(name, []);
    for (let chunk = 0; chunk < facts.grids; chunk++) addScript(`grid-${String(chunk).padStart(5, "0")}.js`);
  }

  const grids = new Map();

  function grid(chunk, lists) {
    grids.set(chunk, lists);
    if (grids.size < about.grids) return;
    for (let next = 0; next < about.grids; next++) {
      [...columns.values()].forEach((column, index) => {
        for (const cell of grids.get(next)[index]) column.push(cell);
      });
    }
    grids.clear();
    size = columns.get("run").length;
    begin();
  }

  function traces(chunk, list) {
    arrivals.get(chunk)?.(list);
    arrivals.delete(chunk);
  }

  /** What the strip shows of a trace, when its chunk has come. Few chunks are kept. */
  async function details(trace) {
    const chunk = Math.floor(trace / about.traces_per_chunk);
    if (!chunks.has(chunk)) {
      chunks.set(chunk, new Promise((resolve) => arrivals.set(chunk, resolve)));
      addScript(`traces-${String(chunk).padStart(5, "0")}.js`);
      if (chunks.size > CHUNKS_KEPT) chunks.delete(chunks.keys().next().value);
    }
    return (await chunks.get(chunk))[trace % about.traces_per_chunk];
  }

  /** The columns of scorers that judge whole traces and do not say of all the same; values first. */
  function judges() {
    const varied = about.judges.filter((name) => binsOf(name).high > binsOf(name).low);
    return varied.sort((a, b) => b.endsWith(".value") - a.endsWith(".value"));
  }

  /* Which traces, and in what order */

  /** What a trace is among the options of a filter: one of them, or the several reasons of its rows. */
  function optionsOf(name, trace) {
    const cell = value(name, trace);
    return name === "dropped_as" && cell !== null ? cell.split(", ") : [cell];
  }

  function holds(trace, except) {
    if (state.text && !searched[trace].includes(state.text)) return false;
    for (const [name, chosen] of state.chosen) {
      if (name !== except && chosen.size && !optionsOf(name, trace).some((option) => chosen.has(option))) return false;
    }
    for (const [name, [low, high]] of state.ranges) {
      const cell = value(name, trace);
      if (name !== except && (cell === null || cell < low || cell > high)) return false;
    }
    return true;
  }

  function filtered(except) {
    const list = [];
    for (let trace = 0; trace < size; trace++) if (holds(trace, except)) list.push(trace);
    return list;
  }

  /** The order of a list by numbers; what has none comes last. */
  function ordered(list, key, descending) {
    const sign = descending ? -1 : 1, rank = columns.get("rank");
    return list.sort((a, b) => {
      const left = key(a), right = key(b);
      if (left === right) return rank[a] - rank[b];
      if (left === null || right === null) return left === null ? 1 : -1;
      return left < right ? -sign : sign;
    });
  }

  /** Of each trace how much further up the critic ranks it than the judge does: -1 to 1, or null. */
  function disagreement() {
    const judge = get("judge").value, lists = ["score", judge];
    if (!lists.every(isNumber)) return () => null;
    const both = [...Array(size).keys()].filter((trace) => lists.every((name) => value(name, trace) !== null));
    const [critic, other] = lists.map((name) => {
      const places = new Map();
      const sorted = both.slice().sort((a, b) => value(name, a) - value(name, b));
      for (let start = 0, stop = 0; start < sorted.length; start = stop) { // equal ones share a place
        while (stop < sorted.length && value(name, sorted[stop]) === value(name, sorted[start])) stop++;
        for (const trace of sorted.slice(start, stop)) places.set(trace, (start + stop - 1) / 2 / sorted.length);
      }
      return places;
    });
    return (trace) => (critic.has(trace) ? critic.get(trace) - other.get(trace) : null);
  }

  function update(keepsPage) {
    const [name, direction] = state.sort.split("|");
    const key = name === "disagreement" ? disagreement() : (trace) => value(name, trace);
    shown = ordered(filtered(), key, direction === "down");
    if (!keepsPage) state.page = 0;
    get("count").textContent = `${shown.length.toLocaleString("en")} of ${size.toLocaleString("en")} traces`;
    drawFacets();
    drawHistograms();
    drawMatrix();
    drawPage();
  }

  /* Filters */

  function optionName(name, option) {
    if (name === "run") return about.runs[option].name;
    if (YES_NO[name]) return YES_NO[name][option ? 0 : 1];
    return option ?? (name === "dropped_as" ? "no row dropped" : "none");
  }

  function drawFacets() {
    for (const [name, title] of FACETS) {
      const counts = new Map();
      for (let trace = 0; trace < size; trace++) for (const option of optionsOf(name, trace)) counts.set(option, 0);
      const facet = get(`facet-${name}`);
      const isOf = name === "kept" || name === "dropped_as" ? about.set : true;
      if (!isOf || counts.size < 2 || counts.size > MOST_OPTIONS) continue;
      for (const trace of filtered(name)) for (const option of optionsOf(name, trace)) counts.set(option, counts.get(option) + 1);
      if (facet) {
        for (const label of facet.querySelectorAll("label")) {
          label.querySelector("i").textContent = counts.get(label.option).toLocaleString("en");
        }
        continue;
      }
      const options = make("div", "options");
      const fieldset = make("fieldset", "", make("legend", "", title), options);
      fieldset.id = `facet-${name}`;
      for (const [option, count] of [...counts].sort((a, b) => b[1] - a[1])) {
        const box = make("input");
        box.type = "checkbox";
        box.addEventListener("change", () => {
          const chosen = state.chosen.get(name) ?? new Set();
          chosen[box.checked ? "add" : "delete"](option);
          state.chosen.set(name, chosen);
          update();
        });
        const tag = make("span", "", make("bdi", "", optionName(name, option)), " ", make("i", "", count.toLocaleString("en")));
        const label = make("label", "", box, tag);
        label.option = option;
        options.append(label);
      }
      get("facets").append(fieldset);
    }
  }

  function binsOf(name) {
    if (!bins.has(name)) {
      let low = Infinity, high = -Infinity;
      for (const cell of columns.get(name)) {
        if (cell === null) continue;
        if (cell < low) low = cell;
        if (cell > high) high = cell;
      }
      if (name === "score") [low, high] = [0, 100];
      const counts = Array(BINS).fill(0);
      const of = (cell) => Math.max(0, Math.min(BINS - 1, Math.floor(((cell - low) / (high - low || 1)) * BINS)));
      for (const cell of columns.get(name)) if (cell !== null) counts[of(cell)]++;
      bins.set(name, { low, high, of, counts, edge: (bin) => low + ((high - low) * bin) / BINS });
    }
    return bins.get(name);
  }

  function setRange(name, low, high) {
    const { low: least, high: most } = binsOf(name);
    if (low <= least && high >= most) state.ranges.delete(name);
    else state.ranges.set(name, [low, high]);
  }

  /** The values in bins `first` to `last`: up to, and but for the last bin without, its upper edge. */
  function binRange(name, first, last) {
    const { edge, high } = binsOf(name);
    return [edge(first), last === BINS - 1 ? high : edge(last + 1) - Number.EPSILON * Math.max(1, Math.abs(edge(last + 1)))];
  }

  function makeHistogram(name) {
    const { low, high, counts, edge } = binsOf(name), most = Math.max(...counts);
    const bars = make("div", "bars");
    let anchor = 0;
    const choose = (bin, isExtended) => {
      anchor = isExtended ? anchor : bin;
      const [first, last] = [Math.min(anchor, bin), Math.max(anchor, bin)], range = binRange(name, first, last);
      const now = state.ranges.get(name);
      if (!isExtended && now && now[0] === range[0] && now[1] === range[1]) state.ranges.delete(name);
      else setRange(name, ...range);
      update();
    };
    counts.forEach((count, bin) => {
      const bar = make("button");
      bar.type = "button";
      bar.tabIndex = -1; // the two fields below do the same by keyboard
      bar.ariaLabel = bar.title = `${number(edge(bin))} to ${number(edge(bin + 1))}: ${count}`;
      bar.style.setProperty("--all", count ? Math.max(0.04, count / most) : 0);
      bar.addEventListener("pointerdown", (event) => { event.target.releasePointerCapture?.(event.pointerId); choose(bin, event.shiftKey); });
      bar.addEventListener("pointerenter", (event) => { if (event.buttons) choose(bin, true); });
      bars.append(bar);
    });
    const [from, to] = ["lowest", "highest"].map((word) => {
      const field = make("input");
      field.type = "number";
      field.step = "any";
      field.ariaLabel = `${name}, ${word}`;
      field.addEventListener("change", () => {
        setRange(name, from.value === "" ? low : Number(from.value), to.value === "" ? high : Number(to.value));
        update();
      });
      return field;
    });
    const fieldset = make("fieldset", "histogram", make("legend", "", name), bars, make("div", "range", from, "to", to));
    fieldset.id = `histogram-${name}`;
    return fieldset;
  }

  function drawHistograms() {
    for (const name of about.numbers) {
      const fieldset = get(`histogram-${name}`);
      if (!fieldset) continue;
      const { counts, of, low, high } = binsOf(name), most = Math.max(...counts);
      const now = Array(BINS).fill(0), range = state.ranges.get(name);
      for (const trace of filtered(name)) if (value(name, trace) !== null) now[of(value(name, trace))]++;
      [...fieldset.querySelectorAll(".bars button")].forEach((bar, bin) => {
        bar.style.setProperty("--shown", now[bin] ? Math.max(0.04, now[bin] / most) : 0);
        bar.classList.toggle("chosen", Boolean(range) && binRange(name, bin, bin)[0] >= range[0] && binRange(name, bin, bin)[1] <= range[1]);
      });
      const [from, to] = fieldset.querySelectorAll("input");
      from.placeholder = number(low);
      to.placeholder = number(high);
      from.value = range && range[0] > low ? number(range[0]) : "";
      to.value = range && range[1] < high ? number(range[1]) : "";
    }
  }

  function drawMatrix() {
    const judge = get("judge").value;
    if (get("cross").hidden) return;
    const [critic, other] = [binsOf("score"), binsOf(judge)], step = BINS / CELLS;
    const counts = Array(CELLS * CELLS).fill(0);
    for (const trace of filtered()) {
      const [x, y] = [value("score", trace), value(judge, trace)];
      if (x !== null && y !== null) counts[Math.floor(other.of(y) / step) * CELLS + Math.floor(critic.of(x) / step)]++;
    }
    const most = Math.max(1, ...counts), cells = [];
    for (let y = CELLS - 1; y >= 0; y--) {
      for (let x = 0; x < CELLS; x++) {
        const count = counts[y * CELLS + x], cell = make("button");
        cell.type = "button";
        cell.tabIndex = -1;
        cell.disabled = !count;
        const [left, right, low, high] = [critic.edge(x * step), critic.edge((x + 1) * step), other.edge(y * step), other.edge((y + 1) * step)];
        cell.ariaLabel = cell.title = `critic ${number(left)} to ${number(right)}, judge ${number(low)} to ${number(high)}: ${count}`;
        cell.style.setProperty("--heat", count ? 0.12 + (0.88 * Math.log1p(count)) / Math.log1p(most) : 0);
        cell.addEventListener("click", () => {
          setRange("score", ...binRange("score", x * step, (x + 1) * step - 1));
          setRange(judge, ...binRange(judge, y * step, (y + 1) * step - 1));
          update();
        });
        cells.push(cell);
      }
    }
    get("matrix").replaceChildren(...cells);
  }

  /* The grid */

  function badges(trace) {
    const box = make("div", "badges"), verdict = value("verdict", trace), score = columns.get("score")?.[trace] ?? null;
    const add = (className, text) => box.append(make("span", `badge ${className}`, text));
    if (value("status", trace) === "dead") add("dead", "dead");
    else if (score !== null) add(verdict ?? "", `critic ${number(score)}`);
    else if (verdict !== null) add(verdict, verdict);
    if (value("revised", trace)) add("", "drawn again");
    if (about.set) add(value("kept", trace) ? "kept" : "dead", value("kept", trace) ? "kept" : "dropped");
    const name = measure();
    if (name !== "score" && value(name, trace) !== null) add("", `${name} ${number(value(name, trace))}`);
    return box;
  }

  function card(trace) {
    const link = make("a", "card"), run = about.runs[value("run", trace)], thumb = value("thumb", trace);
    const perSheet = about.thumb_columns ** 2, prompt = value("prompt", trace) ?? "";
    const word = thumb < 0 ? value("dead_reason", trace) ?? "no picture" : prompt;
    link.href = `#${encodeURIComponent(value("trace_id", trace))}`;
    link.append(
      picture(run, `thumbs-${value("run", trace)}`, thumb < 0 ? null : Math.floor(thumb / perSheet), thumb % perSheet, about.thumb_columns, word),
      said("p", "", prompt),
      badges(trace),
    );
    return link;
  }

  /** The column that cards and pairs tell of: the one that the order goes by, or else a score. */
  function measure() {
    const name = state.sort.split("|")[0];
    if (isNumber(name)) return name;
    return judges()[0] ?? (isNumber("score") ? "score" : about.numbers[0]);
  }

  /** Pairs of traces to be seen side by side, those that differ most first. */
  function pairs() {
    const name = measure(), groups = new Map(), isOfRuns = state.view === "runs";
    for (const trace of shown) {
      const key = isOfRuns ? `${value("record_id", trace)} ${value("rollout", trace)}` : `${value("run", trace)} ${value("record_id", trace)}`;
      groups.set(key, [...(groups.get(key) ?? []), trace]);
    }
    const list = [];
    for (const members of groups.values()) {
      const sides = isOfRuns
        ? [0, 1].map((run) => members.find((trace) => value("run", trace) === run))
        : (([best, ...rest]) => [best, rest.at(-1)])(ordered(members.slice(), (trace) => value(name, trace), true).filter((trace) => value(name, trace) !== null));
      if (sides.includes(undefined)) continue;
      const [left, right] = sides.map((trace) => value(name, trace));
      list.push({ sides, count: members.length, difference: left === null || right === null ? null : left - right });
    }
    return list.sort((a, b) => Math.abs(b.difference ?? 0) - Math.abs(a.difference ?? 0));
  }

  function pairItem({ sides, count, difference }) {
    const words = state.view === "runs" ? "" : `best and worst of ${count}`;
    const gap = difference === null ? "" : `${words ? ", " : ""}${measure()} differs by ${number(Math.abs(difference))}`;
    const heading = said("p", "", value("prompt", sides[0]) ?? "");
    const item = make("li", "pair", heading, ...sides.map(card), make("span", "gap", words + gap));
    if (state.view === "runs") {
      sides.forEach((trace, side) => item.children[side + 1].querySelector(".badges").prepend(make("span", "badge", about.runs[value("run", trace)].name)));
    }
    return item;
  }

  function drawPage() {
    const isGrid = state.view === "grid", list = isGrid ? shown : pairs();
    const perPage = isGrid ? PER_PAGE : PAIRS_PER_PAGE, last = Math.max(0, Math.ceil(list.length / perPage) - 1);
    state.page = Math.min(state.page, last);
    const part = list.slice(state.page * perPage, (state.page + 1) * perPage);
    const items = part.map((item) => (isGrid ? make("li", "", card(item)) : pairItem(item)));
    if (!items.length) items.push(make("li", "nothing", isGrid ? "No trace is like that." : "No two traces to compare are among these."));
    get("grid").className = `grid${isGrid ? "" : " pairs"}`;
    get("grid").replaceChildren(...items);
    get("page").textContent = `${state.page + 1} / ${last + 1}`;
    get("before").disabled = state.page === 0;
    get("after").disabled = state.page === last;
    get("before").closest("nav").hidden = last === 0;
  }

  function turn(pages) {
    state.page += pages;
    drawPage();
    get("traces").focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  /* One trace */

  function frame(item, run, folder) {
    const replaced = item.replaced ? " replaced" : "", revision = item.revision ? " revision" : "";
    const label = `canvas after region ${item.region + 1}${item.revision ? `, drawing ${item.revision + 1}` : ""}${item.replaced ? ", replaced later" : ""}`;
    const box = make("div", `frame${replaced}${revision}`);
    const thought = said("p", "thought", item.thought);
    thought.tabIndex = 0; // it may scroll
    const [sheet, slot] = item.picture ?? [null, 0];
    const verdict = make("div", "verdict"), critique = item.critique;
    if (critique === null) verdict.append(make("span", "badge", "not judged"));
    else {
      if (critique.score !== null) verdict.append(make("strong", "", number(critique.score)));
      verdict.append(make("span", `badge ${critique.verdict}`, critique.verdict));
    }
    if (item.replaced) verdict.append(make("span", "badge", "drawn again"));
    box.append(thought, picture(run, folder, sheet, slot, run.columns, sheet === null ? "no picture" : label), verdict);
    if (critique?.problem) box.append(said("p", "better", critique.problem));
    if (critique?.better && critique.verdict !== "accept") box.append(said("p", "better", critique.better));
    box.append(...chips([...item.chips, ...item.thought_chips, ...(critique?.chips ?? [])]));
    if (critique !== null) {
      box.append(make("details", "said", make("summary", "", "the critique as it came"), said("pre", "", critique.said)));
    }
    return box;
  }

  function strip(trace, item) {
    const run = about.runs[value("run", trace)], folder = `pictures-${value("run", trace)}`;
    const prompt = said("h2", "", item.prompt);
    prompt.id = "strip-prompt";
    const regions = make("div", "regions");
    let drawings = null, last = null;
    for (const drawing of item.frames) {
      if (last !== drawing.region) {
        drawings = make("div", "drawings");
        regions.append(make("section", "region", make("h3", "", `Region ${drawing.region + 1}`), drawings));
        last = drawing.region;
      }
      drawings.append(frame(drawing, run, folder));
    }
    if (item.finished) {
      const [sheet, slot] = item.picture ?? [null, 0], box = make("div", "frame finished");
      box.append(picture(run, folder, sheet, slot, run.columns, sheet === null ? "no picture" : "the finished picture"));
      box.append(...chips(item.chips));
      regions.append(make("section", "region", make("h3", "", "The finished picture"), box));
    }
    return [prompt, said("p", "made-by", item.made_by), item.dead ? said("p", "death", item.dead) : null, regions, others(trace), facts(trace, item)];
  }

  /** The other rollouts of the prompt, in both runs. */
  function others(trace) {
    const record = value("record_id", trace), same = [];
    columns.get("record_id").forEach((other, index) => { if (other === record) same.push(index); });
    if (same.length < 2) return null;
    const box = make("div", "others");
    for (const other of same.slice(0, 24)) {
      const link = card(other);
      link.ariaLabel = `rollout ${value("rollout", other)}${about.runs.length > 1 ? ` of ${about.runs[value("run", other)].name}` : ""}`;
      if (other === trace) link.ariaCurrent = "true";
      box.append(link);
    }
    return make("section", "", make("h3", "", `Rollouts of this prompt: ${same.length}`), box);
  }

  function facts(trace, item) {
    const list = make("dl");
    const rows = [["trace", value("trace_id", trace)], ...item.metadata];
    for (const name of about.numbers) if (value(name, trace) !== null) rows.push([name, number(value(name, trace))]);
    for (const [name, text] of rows) list.append(said("dt", "", name), said("dd", "", text));
    const box = make("div", "facts", make("section", "", make("h3", "", "Facts"), list));
    if (item.decisions.length) {
      const items = item.decisions.map((decision) => make("li", "", decision));
      box.append(make("section", "", make("h3", "", "Rows of the set"), make("ul", "", ...items)));
    }
    return box;
  }

  async function open(trace) {
    at = trace;
    const item = await details(trace);
    if (at !== trace) return; // someone went on meanwhile
    const place = shown.indexOf(trace);
    get("strip-body").replaceChildren(...strip(trace, item).filter((child) => child !== null));
    get("strip-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
    get("previous").disabled = place <= 0;
    get("next").disabled = place < 0 || place === shown.length - 1;
    if (!get("strip").open) get("strip").showModal();
    get("strip").scrollTop = 0;
  }

  function go(step) {
    const next = shown[shown.indexOf(at) + step];
    if (at < 0 || next === undefined) return;
    location.replace(`#${encodeURIComponent(value("trace_id", next))}`);
  }

  function follow() {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* it is no link of ours */ }
    const trace = id ? columns.get("trace_id").indexOf(id) : -1;
    if (trace >= 0) open(trace);
    else close();
  }

  function close() {
    const last = at;
    at = -1;
    if (get("strip").open) get("strip").close();
    if (location.hash.length > 1) history.replaceState(null, "", location.pathname + location.search);
    if (last >= 0) {
      const place = shown.indexOf(last);
      if (state.view === "grid" && place >= 0) {
        const page = Math.floor(place / PER_PAGE);
        if (page !== state.page) { state.page = page; drawPage(); }
      }
      const href = `#${encodeURIComponent(value("trace_id", last))}`;
      [...get("grid").querySelectorAll("a")].find((link) => link.getAttribute("href") === href)?.focus();
    }
  }

  /* The beginning */

  function fillSort() {
    const options = [["rank", "as written"]];
    for (const name of about.numbers) options.push([`${name}|down`, `${name}, highest first`], [`${name}|up`, `${name}, lowest first`]);
    if (!get("cross").hidden) options.push(["disagreement|down", "critic above judge"], ["disagreement|up", "judge above critic"]);
    get("sort").append(...options.map(([key, text]) => { const option = make("option", "", text); option.value = key; return option; }));
  }

  function begin() {
    searched = columns.get("prompt").map((prompt, trace) => [prompt, value("category", trace), value("trace_id", trace), value("dead_reason", trace)].join("\n").toLowerCase());
    get("judge").append(...judges().map((name) => { const option = make("option", "", name); option.value = name; return option; }));
    get("cross").hidden = !judges().length || !isNumber("score");
    const first = ["score", ...judges().filter((name) => name.endsWith(".value"))].filter(isNumber);
    const varied = [...new Set([...first, ...about.numbers])].filter((name) => binsOf(name).high > binsOf(name).low);
    get("histograms").append(...varied.slice(0, MOST_HISTOGRAMS).map(makeHistogram));
    get("views").querySelector("[value=runs]").closest("label").hidden = !about.beside;
    if (matchMedia("(max-width: 60rem)").matches) get("side").open = false;
    fillSort();
    listen();
    update();
    follow();
  }

  function listen() {
    get("text").addEventListener("input", (event) => { state.text = event.target.value.trim().toLowerCase(); update(); });
    get("sort").addEventListener("change", (event) => { state.sort = event.target.value; update(); });
    get("judge").addEventListener("change", () => update());
    get("views").addEventListener("change", (event) => { state.view = event.target.value; state.page = 0; drawPage(); });
    get("filters").addEventListener("submit", (event) => event.preventDefault());
    get("filters").addEventListener("reset", () => { state.text = ""; state.chosen.clear(); state.ranges.clear(); setTimeout(update); });
    get("before").addEventListener("click", () => turn(-1));
    get("after").addEventListener("click", () => turn(1));
    get("previous").addEventListener("click", () => go(-1));
    get("next").addEventListener("click", () => go(1));
    get("close").addEventListener("click", close);
    get("strip").addEventListener("cancel", (event) => { event.preventDefault(); close(); });
    get("strip").addEventListener("click", (event) => { if (event.target === get("strip")) close(); });
    addEventListener("hashchange", follow);
    addEventListener("keydown", press);
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input:not([type=checkbox]):not([type=radio]), select");
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
    if (get("strip").open) {
      if (step && !isTyping) { event.preventDefault(); go(step); }
    } else if (event.key === "/" && !isTyping) {
      event.preventDefault();
      get("side").open = true;
      get("text").focus();
    } else if (step && event.target.matches(".card, #traces, body")) {
      const links = [...get("grid").querySelectorAll("a")], next = links[links.indexOf(event.target) + step];
      if (next) { event.preventDefault(); next.focus(); }
    }
  }

  return { view, grid, traces };
})();

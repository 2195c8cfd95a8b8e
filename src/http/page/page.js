"use strict";
// The looking glass: asks the API beside it, shows what it says. Text is only ever set as text.
(() => {
  const STATUS_MS = 1000, VIEW_MS = 2000, TIMEOUT_MS = 15000;
  const CHART_MS = 5 * 60 * 1000, GAP_MS = 10000;
  const PAGE = matchMedia("(max-width: 42rem)").matches ? 20 : 50, LIST_MAX = 1000;
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en-US");

  // --- words ---------------------------------------------------------------------------------
  const count = (it) => (it === null || it === undefined ? "–" : number.format(it));
  const some = (it, word) => `${count(it)} ${word}${it === 1 ? "" : "s"}`;
  function span(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    const s = Math.floor(seconds);
    if (s < 60) return `${s}s`;
    if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
    if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`;
    return `${Math.floor(s / 86400)}d ${Math.floor(s / 3600) % 24}h`;
  }
  function bytes(it) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (it >= 1024 && unit < units.length - 1) { it /= 1024; unit += 1; }
    return `${unit && it < 10 ? it.toFixed(1) : Math.round(it)} ${units[unit]}`;
  }
  function rate(it) {
    if (it === null) return "–";
    if (it >= 10000) return `${number.format(Math.round(it / 1000))} k`;
    return it > 0 && it < 10 ? it.toFixed(1) : number.format(Math.round(it));
  }

  // --- where we are: #/routes?match=10.0.0.1&vni=100 --------------------------------------------
  function place() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const view = ["peers", "vnis", "routes"].includes(path) ? path : "peers";
    return { view, params: new URLSearchParams(query || "") };
  }
  function go(view, params) {
    const text = params.toString();
    const hash = `#/${view}${text ? `?${text}` : ""}`;
    if (location.hash === hash) arrive(); else location.hash = hash;
  }

  // --- asking ----------------------------------------------------------------------------------
  class Refused extends Error {}
  async function ask(path, params, signal) {
    const query = params && params.toString() ? `?${params}` : "";
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    const either = signal ? AbortSignal.any([signal, limit]) : limit;
    const response = await fetch(`api/v1/${path}${query}`, { signal: either, cache: "no-store" });
    const body = await response.json();
    if (!response.ok) throw new Refused(body.error || response.statusText);
    return body;
  }

  // --- the tables ------------------------------------------------------------------------------
  const link = (text, view, params) => ({ text, href: `#/${view}?${new URLSearchParams(params)}` });
  const good = { established: "good", connecting: "warn", await_hello: "warn", await_keepalive: "warn", retry: "bad", draining: "warn" };
  const VIEWS = {
    peers: {
      key: (it) => `${it.name} ${it.id}`,
      empty: "No peers.",
      columns: [
        ["Peer", "name", (it) => link(it.name, "routes", { peer: it.name }), "mono head"],
        ["State", "state", (it) => ({ text: it.state.replace("_", " "), pill: good[it.state] || "" })],
        ["Kind", "kind", (it) => it.kind],
        ["Uptime", "uptime_seconds", (it) => span(it.uptime_seconds), "num"],
        ["Routes", "routes", (it) => count(it.routes), "num"],
        ["VNIs", "subscriptions", (it) => count(it.subscriptions), "num"],
        ["Queue", "queued_bytes", (it) => bytes(it.queued_bytes), "num"],
        ["Last heard", "keepalive_age_seconds", (it) => (it.state === "retry" || it.state === "connecting" ? "–" : `${it.keepalive_age_seconds.toFixed(1)}s`), "num"],
        ["Flaps", "flaps", (it) => count(it.flaps), "num", "sessions that ended in the last hour"],
        ["Last error", "last_error", (it) => it.last_notice || it.last_error || "", "wrap"],
      ],
    },
    vnis: {
      key: (it) => it.vni,
      empty: "No VNIs: nobody announces or subscribes.",
      columns: [
        ["VNI", "vni", (it) => link(String(it.vni), "routes", { vni: it.vni }), "head"],
        ["Routes", "routes", (it) => count(it.routes), "num"],
        ["std", "std", (it) => count(it.std), "num"],
        ["nat", "nat", (it) => count(it.nat), "num"],
        ["lb", "lb", (it) => count(it.lb), "num"],
        ["other", "other", (it) => count(it.other), "num"],
        ["Subscribers", "subscribers", (it) => count(it.subscribers), "num"],
        ["Complete", "synced", (it) => (it.synced === null ? "" : { text: it.synced ? "yes" : "no", pill: it.synced ? "good" : "warn" })],
        ["Digest", "digest", (it) => it.digest, "mono", "equal on all servers with the same routes"],
      ],
    },
    routes: {
      key: (it) => [it.vni, it.prefix, it.next_hop, it.target_vni, it.type, it.port_from, it.port_to].join(" "),
      empty: "No such routes.",
      columns: [
        ["Prefix", null, (it) => it.prefix, "mono head"],
        ["VNI", null, (it) => link(String(it.vni), "routes", { vni: it.vni }), "num"],
        ["Next hop", null, (it) => it.next_hop, "mono"],
        ["Type", null, (it) => it.type],
        ["Ports", null, (it) => (it.port_from === null ? "" : `${it.port_from}–${it.port_to}`), "num"],
        ["Target VNI", null, (it) => (it.target_vni === null ? "" : String(it.target_vni)), "num"],
        ["Announced by", null, (it) => it.announcers.join(", ") || "nobody: stale", "mono wrap"],
        ["", null, (it) => (it.suppressed ? { text: "suppressed", pill: "warn" } : "")],
      ],
    },
  };
  const sorting = { peers: ["name", 1], vnis: ["vni", 1] };
  const natural = new Intl.Collator("en", { numeric: true });
  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return typeof a === "number" ? a - b : natural.compare(String(a), String(b));
  }

  function drawHead(view) {
    const row = document.createElement("tr");
    for (const [title, field, , style, hint] of VIEWS[view].columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      if (style && style.includes("num")) cell.className = "num";
      if (hint) cell.title = hint;
      if (field) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = title;
        button.dataset.field = field;
        button.addEventListener("click", () => sortBy(view, field));
        cell.append(button);
      } else {
        cell.textContent = title;
      }
      row.append(cell);
    }
    $("table").tHead.replaceChildren(row);
    markSorting(view);
  }
  function markSorting(view) {
    const [field, way] = sorting[view] || [];
    for (const cell of $("table").tHead.rows[0].cells) {
      const button = cell.querySelector("button");
      if (!button) continue;
      if (button.dataset.field === field) cell.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
  }
  function sortBy(view, field) {
    const [last, way] = sorting[view];
    sorting[view] = [field, last === field ? -way : 1];
    markSorting(view);
    drawRows(view, shown.items, false);
  }

  // Rows stay the same elements while what they are about does: focus and selection survive.
  let rows = new Map();
  let shown = { view: null, items: [], total: 0, first: 1 };
  function drawRows(view, items, marksNew) {
    const { key, columns, empty } = VIEWS[view];
    const body = $("table").tBodies[0];
    let sorted = items;
    if (sorting[view]) {
      const [field, way] = sorting[view];
      sorted = items.slice().sort((a, b) => way * compare(a[field], b[field]) || compare(key(a), key(b)));
    }
    if (view === "peers") sorted = sorted.filter(passesPeerFilter);
    const kept = new Map();
    let at = body.firstElementChild;
    for (const item of sorted) {
      const name = key(item);
      let row = rows.get(name);
      if (!row) {
        row = makeRow(columns);
        if (marksNew) row.classList.add("new");
      }
      kept.set(name, row);
      columns.forEach(([, , text], index) => fillCell(row.cells[index], text(item)));
      if (row === at) at = at.nextElementSibling; else body.insertBefore(row, at);
    }
    for (const [name, row] of rows) if (!kept.has(name)) row.remove();
    rows = kept;
    $("empty").hidden = sorted.length > 0;
    $("empty").textContent = items.length && !sorted.length ? "None of them matches." : empty;
    $("table").hidden = sorted.length === 0;
  }
  function makeRow(columns) {
    const row = document.createElement("tr");
    for (const [title, , , style] of columns) {
      const isHead = style && style.includes("head");
      const cell = document.createElement(isHead ? "th" : "td");
      if (isHead) cell.scope = "row";
      cell.className = (style || "").replace("head", "").trim();
      cell.dataset.label = title;
      row.append(cell);
    }
    return row;
  }
  function fillCell(cell, value) {
    const it = typeof value === "object" ? value : { text: value };
    const mark = `${it.text}\n${it.href || ""}\n${it.pill ?? ""}`;
    if (cell.dataset.mark === mark) return;
    cell.dataset.mark = mark;
    cell.classList.toggle("blank", it.text === "");
    if (it.href) {
      let anchor = cell.querySelector("a");
      if (!anchor) { anchor = document.createElement("a"); cell.replaceChildren(anchor); }
      anchor.href = it.href;
      anchor.textContent = it.text;
    } else if (it.pill !== undefined) {
      const pill = document.createElement("span");
      pill.className = `pill ${it.pill}`;
      pill.textContent = it.text;
      cell.replaceChildren(pill);
    } else {
      cell.textContent = it.text;
    }
  }
  function passesPeerFilter(peer) {
    const text = $("p-text").value.trim().toLowerCase();
    return !text || peer.name.toLowerCase().includes(text);
  }

  // --- the status ------------------------------------------------------------------------------
  let latest = null;
  const samples = [];
  function drawStatus(status) {
    const now = performance.now();
    const last = samples[samples.length - 1];
    const isSame = last && last.started === status.started;
    const elapsed = last ? (now - last.at) / 1000 : 0;
    const isSmooth = isSame && now - last.at < GAP_MS;
    const per = (field) => (isSmooth ? Math.max(0, status[field] - last[field]) / elapsed : null);
    samples.push({
      at: now, started: status.started,
      updates_received: status.updates_received, updates_sent: status.updates_sent,
      received: per("updates_received"), sent: per("updates_sent"),
    });
    while (now - samples[0].at > CHART_MS + 5000) samples.shift();
    latest = status;
    $("side").textContent = status.side;
    $("where").textContent = status.listening ? `listening on ${status.listening}` : "";
    document.title = `RustBond ${status.side}${status.ready ? "" : " – not ready"}`;
    $("ready").textContent = status.ready ? "ready" : "not ready";
    $("ready").className = `pill ${status.ready ? "good" : "bad"}`;
    $("uptime").textContent = span(status.uptime_seconds);
    $("version").textContent = status.version;
    const kernel = status.kernel, server = status.server;
    const isDown = status.established < status.peers;
    drawTiles([
      ["Routes", count(status.routes), server ? some(server.announcements, "announcement") : `${count(status.announced)} announced`],
      ["VNIs", count(status.vnis), server ? some(server.subscriptions, "subscription") : ""],
      [server ? "Sessions" : "Servers", `${count(status.established)}${isDown ? ` / ${count(status.peers)}` : ""}`, "established", isDown ? "warn" : ""],
      ["Received", count(status.updates_received), server ? `updates, ${bytes(server.bytes_received)} in all` : "updates"],
      ["Sent", count(status.updates_sent), server ? `updates, ${bytes(server.bytes_sent)} in all` : "updates"],
      kernel
        ? ["Kernel", `${count(kernel.installed)}${kernel.in_sync ? "" : ` / ${count(kernel.desired)}`}`,
          [kernel.last_error || (kernel.device_up ? (kernel.in_sync ? "routes in sync" : "routes, catching up") : "tunnel device is down"),
            kernel.waiting ? `${count(kernel.waiting)} waiting for a tunnel device` : "",
            kernel.settling ? `${count(kernel.settling)} of an earlier process settling` : ""].filter(Boolean).join(", "),
          kernel.failed || !kernel.device_up ? "bad" : kernel.in_sync ? "" : "warn"]
        : server
          ? ["Slow peers", count(server.folds), "queues folded", ""]
          : ["Announced", count(status.announced), "by this client", ""],
    ]);
    setCount("peers", status.peers);
    setCount("vnis", status.vnis);
    setCount("routes", status.routes);
    const sample = samples[samples.length - 1];
    $("rate-received").textContent = rate(sample.received);
    $("rate-sent").textContent = rate(sample.sent);
    say(status.ready ? "" : `Not ready: ${status.not_ready}`, "warn");
    drawChart();
  }
  function setCount(view, value) { $(`tab-${view}`).querySelector(".count").textContent = count(value); }
  function drawTiles(tiles) {
    const list = $("tiles");
    while (list.children.length < tiles.length) {
      const tile = document.createElement("li");
      tile.append(document.createElement("span"), document.createElement("b"), document.createElement("small"));
      list.append(tile);
    }
    tiles.forEach(([title, value, note, style], index) => {
      const tile = list.children[index];
      tile.className = style || "";
      tile.title = note;
      tile.children[0].textContent = title;
      tile.children[1].textContent = value;
      tile.children[2].textContent = note;
    });
  }

  // --- the chart -------------------------------------------------------------------------------
  function drawChart() {
    const canvas = $("chart"), style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const top = 6, bottom = height - 16, left = 0, right = width - 46;
    const now = performance.now();
    const rates = samples.flatMap((it) => [it.received, it.sent]).filter((it) => it !== null);
    const max = ceiling(Math.max(1, ...rates));
    const x = (at) => right - ((now - at) / CHART_MS) * (right - left);
    const y = (it) => bottom - (it / max) * (bottom - top);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("--dim");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const level = Math.round(y(max * part)) + 0.5;
      pen.beginPath(); pen.moveTo(left, level); pen.lineTo(right, level); pen.stroke();
      pen.textAlign = "left"; pen.textBaseline = "middle";
      pen.fillText(short(max * part), right + 6, level);
    }
    pen.textBaseline = "bottom";
    pen.textAlign = "left"; pen.fillText("5 min ago", left, height);
    pen.textAlign = "right"; pen.fillText("now", right, height);
    pen.save();
    pen.beginPath(); pen.rect(left, 0, right - left, bottom + 2); pen.clip();
    for (const [field, name] of [["received", "--accent"], ["sent", "--sent"]]) {
      pen.strokeStyle = pen.fillStyle = colour(name);
      for (const piece of pieces(field)) {
        const trace = () => {
          pen.beginPath();
          piece.forEach((it, index) => (index ? pen.lineTo(x(it.at), y(it[field])) : pen.moveTo(x(it.at), y(it[field]))));
        };
        pen.globalAlpha = 0.13;
        trace();
        pen.lineTo(x(piece[piece.length - 1].at), bottom);
        pen.lineTo(x(piece[0].at), bottom);
        pen.fill();
        pen.globalAlpha = 1;
        pen.lineWidth = 1.75; pen.lineJoin = "round";
        trace();
        pen.stroke();
      }
    }
    pen.restore();
    const text = samples.length ? `received ${$("rate-received").textContent}, sent ${$("rate-sent").textContent}, at most ${short(max)}` : "";
    canvas.setAttribute("aria-label", `Updates per second over the last five minutes: ${text}`);
  }
  function pieces(field) {
    const all = [[]];
    for (const it of samples) {
      if (it[field] === null) all.push([]); else all[all.length - 1].push(it);
    }
    return all.filter((it) => it.length > 0);
  }
  function ceiling(it) {
    const base = 10 ** Math.floor(Math.log10(it));
    return [1, 2, 5, 10].map((step) => step * base).find((step) => step >= it);
  }
  const short = (it) => (it >= 1e6 ? `${it / 1e6} M` : it >= 1e3 ? `${it / 1e3} k` : String(it));

  // --- what the view asks for ------------------------------------------------------------------
  let history = [];          // cursors of the pages before this one
  let cursor = null, next = null;
  function request() {
    const { view, params } = place();
    const query = new URLSearchParams();
    if (view !== "routes") {
      query.set("limit", LIST_MAX);
      if (view === "peers" && $("p-state").value) query.set("state", $("p-state").value);
      return { view, query };
    }
    for (const name of ["vni", "match", "prefix", "within", "type", "peer", "next_hop"]) {
      if (params.get(name)) query.set(name, params.get(name));
    }
    query.set("limit", PAGE);
    if (cursor !== null) query.set("cursor", cursor);
    return { view, query };
  }

  let asking = null, fetched = null;
  // Fetches what the view shows, if it may have changed.
  async function refresh(isForced) {
    const { view, query } = request();
    const mark = `${view}?${query}`;
    if (!isForced && view === "routes" && fetched === `${mark} ${latest && latest.generation}`) return;
    if (asking) {
      if (!isForced) return;
      asking.abort();
    }
    const mine = (asking = new AbortController());
    try {
      const answer = await ask(view, query, mine.signal);
      if (asking !== mine) return;
      const isSameView = shown.view === mark;
      next = answer.next;
      shown = { view: mark, items: answer[view], total: answer.total };
      drawRows(view, answer[view], isSameView);
      drawPager(view, answer);
      problem("");
      // A table that changes quickly is shown a little late: go on until it is this one.
      fetched = `${mark} ${answer.generation}`;
    } catch (error) {
      if (asking !== mine) return;
      if (!(error instanceof Refused)) throw error;
      problem(error.message);
      shown = { view: null, items: [], total: 0 };
      drawRows(view, [], false);
      $("range").textContent = "";
      fetched = mark;
    } finally {
      if (asking === mine) asking = null;
    }
  }
  function drawPager(view, answer) {
    const length = answer[view].length;
    const isPaged = view === "routes";
    for (const id of ["first", "previous", "next"]) $(id).hidden = !isPaged;
    $("first").disabled = $("previous").disabled = history.length === 0;
    $("next").disabled = !answer.next;
    const from = isPaged ? history.length * PAGE + 1 : 1;
    $("range").textContent = length === 0 ? "" : length === answer.total
      ? `${count(length)} ${length === 1 ? view.slice(0, -1) : view}`.replace("vni", "VNI")
      : `${count(from)}–${count(from + length - 1)} of ${count(answer.total)}${isPaged ? "" : " (narrow it down to see the others)"}`;
  }
  function problem(text) {
    $("problem").hidden = !text;
    $("problem").textContent = text;
  }
  function turn(change) {
    change();
    refresh(true).catch(lose);
  }

  // A new address in the bar: another view, other filters, the first page.
  function arrive() {
    const { view, params } = place();
    if (document.body.dataset.view !== view) {
      for (const row of rows.values()) row.remove();
      rows = new Map();
      drawHead(view);
      document.body.dataset.view = view;
    }
    for (const name of Object.keys(VIEWS)) {
      if (name === view) $(`tab-${name}`).setAttribute("aria-current", "page");
      else $(`tab-${name}`).removeAttribute("aria-current");
    }
    $("search").hidden = view !== "routes";
    $("peer-filter").hidden = view !== "peers";
    $("scroll").setAttribute("aria-label", `Table of ${view === "vnis" ? "VNIs" : view}`);
    const mode = ["match", "prefix", "within"].find((it) => params.get(it)) || "match";
    $("f-net").value = params.get(mode) || "";
    $("f-mode").value = mode;
    $("f-vni").value = params.get("vni") || "";
    $("f-type").value = params.get("type") || "";
    $("f-peer").value = params.get("peer") || "";
    turn(() => { history = []; cursor = next = null; problem(""); });
  }
  function search(event) {
    event.preventDefault();
    const params = new URLSearchParams();
    const set = (name, id) => { const it = $(id).value.trim(); if (it) params.set(name, it); };
    set($("f-mode").value, "f-net");
    set("vni", "f-vni");
    set("type", "f-type");
    set("peer", "f-peer");
    go("routes", params);
  }

  // --- the clock -------------------------------------------------------------------------------
  let timer = null, ticks = 0, isTicking = false;
  async function tick() {
    if (isTicking) return;
    clearTimeout(timer);
    isTicking = true;
    let pause = STATUS_MS;
    try {
      drawStatus(await ask("status"));
      found();
      if (ticks % (VIEW_MS / STATUS_MS) === 0) await refresh(false);
      ticks += 1;
    } catch (error) {
      lose(error);
      ticks = 0;
      pause = VIEW_MS;
    }
    isTicking = false;
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(tick, pause);
  }
  let isLost = false;
  function lose(error) {
    if (error && error.name === "AbortError") return;
    isLost = true;
    fetched = null;
    document.body.classList.add("lost");
    say("Connection lost – trying again …", "");
  }
  function found() {
    if (isLost) fetched = null;
    isLost = false;
    document.body.classList.remove("lost");
  }
  function say(text, style) {
    if ($("banner").textContent !== text) $("banner").textContent = text;
    $("banner").className = style;
    $("banner").hidden = !text;
  }

  window.addEventListener("hashchange", arrive);
  window.addEventListener("resize", drawChart);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) tick();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
  $("search").addEventListener("submit", search);
  $("search").addEventListener("reset", (event) => { event.preventDefault(); go("routes", new URLSearchParams()); });
  for (const id of ["f-type", "f-mode"]) $(id).addEventListener("change", search);
  $("peer-filter").addEventListener("submit", (event) => event.preventDefault());
  $("p-text").addEventListener("input", () => { if (place().view === "peers") drawRows("peers", shown.items, false); });
  $("p-state").addEventListener("change", () => turn(() => {}));
  $("first").addEventListener("click", () => turn(() => { history = []; cursor = null; }));
  $("previous").addEventListener("click", () => turn(() => { cursor = history.pop() ?? null; }));
  $("next").addEventListener("click", () => turn(() => { if (next) { history.push(cursor); cursor = next; } }));
  arrive();
  tick();
})();

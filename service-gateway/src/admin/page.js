// Draws what /api/events tells. Every event is the whole state, so a page that reconnects is right at once.
"use strict";

// --- words, in both languages ---

const texts = {
  en: {
    traffic: "Traffic", requests: "Requests", failures: "Failures", retries: "Retries", hedges: "Hedges",
    registry: "Registry", events: "Events", revision: "Revision", age: "Snapshot", stale: "Stale for", skipped: "Entries skipped",
    live: "live", lost: "the gateway is away, trying again …", total: (n) => `${n} in all`,
    ago: (time) => `${time} ago`, now: "now",
    link: {
      connected: (name) => `${name}: connected`,
      away: (name, nodes) => `${name}: disconnected, serving the last known ${count(nodes, "node")}`,
      pending: (name) => `${name}: no snapshot yet`,
    },
    states: { up: "up", ejected: "ejected", unconfirmed: "unconfirmed", draining: "draining", leaving: "leaving" },
    why: { unreachable: "unreachable", silent: "no response", failing: "5 × 5xx", timeout: "5 × timeout" },
    ejected: (why) => `ejected: ${why}`,
    nodes: (n) => count(n, "node"), failed: (n) => `${n} failed`, perSecond: "/s", idle: "no requests",
    untagged: "no version", more: (n) => `… and ${n} more, all of them in /api/instances`,
    drain: "drain", release: "release", act: (action, node) => `${action} ${node}`, refused: (why) => `refused: ${why}`,
    split: "Share of the versions", instances: (service) => `Nodes of ${service}`,
    chart: (requests, failures) => `The last three minutes. Now ${requests} requests, ${failures} failures.`,
    happened: {
      listed: (who) => `initial snapshot: ${who}`, joined: (who) => `${who} added`, left: (who) => `${who} removed`,
      changed: (who) => `${who} registered again`, ejected: (who, why) => `${who} ejected: ${why}`,
      draining: (who) => `${who} draining`, up: (who) => `${who} up again`,
      unconfirmed: (who) => `${who} unconfirmed: removed with most of the others, kept for now`,
      away: (who) => `registry disconnected, serving the last known ${who}`, connected: (who) => `registry reconnected: ${who}`,
    },
    named: (instance, version) => (version ? `${instance} (${version})` : instance),
  },
  zh: {
    traffic: "流量", requests: "请求", failures: "失败", retries: "重试", hedges: "对冲",
    registry: "注册中心", events: "事件", revision: "修订号", age: "快照更新于", stale: "已过期", skipped: "跳过的条目",
    live: "实时", lost: "网关失联，正在重连…", total: (n) => `共 ${n}`,
    ago: (time) => `${time}前`, now: "现在",
    link: {
      connected: (name) => `${name}：已连接`,
      away: (name, nodes) => `${name}：失联，沿用最后已知的 ${nodes} 个节点`,
      pending: (name) => `${name}：尚无快照`,
    },
    states: { up: "正常", ejected: "已摘除", unconfirmed: "待确认", draining: "摘流中", leaving: "离开" },
    why: { unreachable: "无法连接", silent: "无响应", failing: "连续 5 次 5xx", timeout: "连续 5 次超时" },
    ejected: (why) => `已摘除：${why}`,
    nodes: (n) => `${n} 个节点`, failed: (n) => `${n} 失败`, perSecond: "/秒", idle: "没有请求",
    untagged: "无版本", more: (n) => `……另有 ${n} 个，全部见 /api/instances`,
    drain: "摘流", release: "恢复", act: (action, node) => `${action} ${node}`, refused: (why) => `被拒绝：${why}`,
    split: "各版本占比", instances: (service) => `${service} 的节点`,
    chart: (requests, failures) => `最近三分钟。当前请求 ${requests}，失败 ${failures}。`,
    happened: {
      listed: (who) => `初始快照：${who}`, joined: (who) => `${who} 加入`, left: (who) => `${who} 离开`,
      changed: (who) => `${who} 重新注册`, ejected: (who, why) => `${who} 被摘除：${why}`,
      draining: (who) => `${who} 开始摘流`, up: (who) => `${who} 恢复正常`,
      unconfirmed: (who) => `${who} 从列表中消失，暂时保留`,
      away: (who) => `注册中心失联，沿用最后已知的 ${who}`, connected: (who) => `注册中心恢复：${who}`,
    },
    named: (instance, version) => (version ? `${instance}（${version}）` : instance),
  },
};
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const language = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag in texts) ?? "en";
const text = texts[language];
const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const digits = new Intl.NumberFormat(language, { maximumSignificantDigits: 2 });
const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const perSecond = (n) => (n < 10 ? tenths : whole).format(n) + text.perSecond;
const milliseconds = (n) => `${(n < 10 ? digits : whole).format(n)} ms`;
const duration = (seconds) => {
  const [n, unit] = seconds < 120 ? [seconds, "second"] : seconds < 7200 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "narrow", maximumFractionDigits: 0 }).format(n);
};

// --- elements ---

const byId = (id) => document.getElementById(id);
const copyOf = (template) => byId(template).content.firstElementChild.cloneNode(true);
const element = (tag, words = "", attributes = {}) => {
  const made = document.createElementNS(tag in shapes ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const shapes = { path: 0, rect: 0, text: 0 };
/** Browsers draw again whatever is set, be it the same. */
const say = (target, words) => { if (target.textContent !== words) target.textContent = words; };
const set = (target, name, value) => { if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value); };
const style = (target, name, value) => { if (target.style.getPropertyValue(name) !== value) target.style.setProperty(name, value); };

// --- rates: differences of counts over the last two seconds ---

const WINDOW = 2000;

class Rates {
  samples = [];

  /** Takes counts of a moment, in milliseconds, and returns what came in a second. */
  of(at, counts) {
    const last = this.samples.at(-1);
    if (last && (last.at > at || counts.requests < last.counts.requests)) this.samples = []; // it began anew
    if (this.samples.at(-1)?.at !== at) this.samples.push({ at, counts });
    while (this.samples.length > 2 && this.samples[1].at <= at - WINDOW) this.samples.shift();
    const first = this.samples[0];
    const seconds = (at - first.at) / 1000;
    const rate = ([name, n]) => [name, seconds > 0 ? (n - first.counts[name]) / seconds : 0];
    return Object.fromEntries(Object.entries(counts).map(rate));
  }
}

// --- the nodes of a service ---

const token = document.querySelector("meta[name=admin-token]").content;
const LEAVING = 250; // ms for which one that left is still seen
const FEW = 16; // that are drawn with lines; more are tiles
const COLOURS = 6;

class Node {
  constructor(service, { instance }) {
    this.service = service;
    this.instance = instance;
    this.rates = new Rates();
    this.drawn = copyOf("node-template");
    this.drawn.dataset.instance = instance;
    this.parts = Object.fromEntries([...this.drawn.querySelectorAll("[class], button")].map((part) => [part.className || "button", part]));
    this.lines = [element("path"), element("path", "", { class: "flow" })];
    this.parts.button.addEventListener("click", () => this.act());
    say(this.parts.address, instance);
  }

  take(at, told) {
    clearTimeout(this.leaving);
    this.leaving = undefined;
    this.told = told;
    const { requests, failures, micros } = told;
    const rates = this.rates.of(at, { requests, failures, micros });
    this.rate = rates.requests;
    this.latency = this.rate > 0 ? rates.micros / this.rate / 1000 : null;
  }

  draw(colour, most) {
    const { drawn, parts, told } = this;
    set(drawn, "data-version", told.version ?? "");
    set(drawn, "data-state", told.state);
    style(drawn, "--version", colour);
    style(drawn, "--part", (most > 0 ? this.rate / most : 0).toFixed(3));
    const rest = Object.entries(told.tags).filter(([key]) => key !== "version").map(([key, value]) => `${key}=${value}`).join(" ");
    const tags = JSON.stringify([told.version, rest]);
    if (this.tags !== tags) {
      this.tags = tags;
      parts.tags.replaceChildren(...(told.version ? [element("b", told.version)] : []), rest);
      parts.tags.title = rest;
    }
    say(parts.rate, perSecond(this.rate));
    say(parts.latency, this.latency === null ? "–" : milliseconds(this.latency));
    say(parts.failures, text.failed(whole.format(told.failures)));
    parts.failures.classList.toggle("some", told.failures > 0);
    say(parts.state, told.ejected ? text.ejected(text.why[told.ejected]) : text.states[told.state]);
    for (const line of this.lines) {
      set(line, "data-state", told.state);
      style(line, "--version", colour);
    }
    style(this.lines[0], "--wide", `${(1.5 + (most > 0 ? 4.5 * this.rate / most : 0)).toFixed(1)}px`);
    this.lines[1].classList.toggle("still", this.rate === 0);
    this.drawAction();
  }

  drawAction() {
    const { button } = this.parts;
    button.hidden = token === "";
    const action = this.told.state === "draining" ? "release" : "drain";
    say(button, text[action]);
    set(button, "aria-label", text.act(text[action], this.instance));
    button.value = action;
  }

  async act() {
    const [service, instance] = [this.service, this.instance].map(encodeURIComponent);
    const answer = await fetch(`api/services/${service}/instances/${instance}/${this.parts.button.value}`, {
      method: "POST", headers: { "x-admin-token": token },
    });
    if (!answer.ok) say(byId("announcer"), text.refused((await answer.json()).detail));
  }

  /** Shows that it left, and goes after a moment. */
  leave(gone) {
    if (this.leaving !== undefined) return;
    this.drawn.dataset.state = "leaving";
    say(this.parts.state, text.states.leaving);
    for (const line of this.lines) line.dataset.state = "leaving";
    this.leaving = setTimeout(() => {
      this.drawn.remove();
      for (const line of this.lines) line.remove();
      gone();
    }, LEAVING);
  }
}

class Service {
  constructor(name) {
    this.name = name;
    this.nodes = new Map();
    this.drawn = copyOf("service-template");
    const find = (selector) => this.drawn.querySelector(selector);
    [this.list, this.links, this.hub, this.split, this.map] = [".nodes", ".links", ".hub", ".split", ".map"].map(find);
    [this.counts, this.more, this.rate] = [".counts", ".more", ".hub b"].map(find);
    find("h2").textContent = name;
    find(".hub small").textContent = text.registry;
    this.list.setAttribute("aria-label", text.instances(name));
    this.list.addEventListener("keydown", (event) => this.walk(event));
    new ResizeObserver(() => this.drawLines()).observe(this.map);
  }

  take(at, told) {
    this.told = told;
    const known = new Set();
    for (const instance of told.instances) {
      const name = instance.instance;
      known.add(name);
      if (!this.nodes.has(name)) this.nodes.set(name, new Node(this.name, instance));
      this.nodes.get(name).take(at, instance);
    }
    for (const [name, node] of this.nodes) {
      if (!known.has(name)) node.leave(() => { this.nodes.delete(name); this.drawLines(); });
    }
    this.draw();
  }

  draw() {
    const { instances, versions, states } = this.told;
    const nodes = instances.map(({ instance }) => this.nodes.get(instance));
    const names = Object.keys(versions).sort(new Intl.Collator("en", { numeric: true }).compare);
    const colour = (version) => `var(--v${names.indexOf(version ?? "") % COLOURS})`;
    const all = Object.values(versions).reduce((sum, n) => sum + n, 0);
    const most = Math.max(0, ...nodes.map((node) => node.rate));
    this.drawn.classList.toggle("dense", nodes.length > FEW);
    for (const node of nodes) node.draw(colour(node.told.version), most);
    const notUp = Object.entries(states).filter(([state]) => state !== "up").map(([state, n]) => `${n} ${text.states[state]}`);
    say(this.counts, [text.nodes(all), ...notUp].join(" · "));
    say(this.more, all > nodes.length ? text.more(whole.format(all - nodes.length)) : "");
    this.drawSplit(names, nodes, colour);
    if (this.place(nodes)) this.drawLines();
  }

  drawSplit(names, nodes, colour) {
    const shares = names.map((version) => {
      const shown = nodes.filter((node) => (node.told.version ?? "") === version);
      const rate = shown.reduce((sum, node) => sum + node.rate, 0);
      // Of those that are not shown, each gets what one that is shown does.
      return { version, rate: shown.length ? rate * this.told.versions[version] / shown.length : 0 };
    });
    const total = shares.reduce((sum, { rate }) => sum + rate, 0);
    say(this.rate, perSecond(total));
    const parts = shares.filter(({ rate }) => rate > 0);
    while (this.split.children.length > Math.max(1, parts.length)) this.split.lastElementChild.remove();
    while (this.split.children.length < Math.max(1, parts.length)) this.split.append(element("span"));
    const words = parts.map(({ version, rate }) => `${version || text.untagged} · ${whole.format(100 * rate / total)} %`);
    if (parts.length === 0) words.push(text.idle);
    words.forEach((part, index) => {
      const drawn = this.split.children[index];
      say(drawn, part);
      drawn.classList.toggle("idle", parts.length === 0);
      style(drawn, "--share", parts.length ? (parts[index].rate / total).toFixed(3) : "1");
      style(drawn, "--version", parts.length ? colour(parts[index].version) : "none");
    });
    set(this.split, "aria-label", `${text.split}: ${words.join(", ")}`);
  }

  /** Puts the elements in the order of the list. Returns whether something moved. */
  place(nodes) {
    let moved = false;
    let next = this.list.firstElementChild;
    for (const { drawn, lines } of nodes) {
      while (next?.dataset.state === "leaving" && next !== drawn) next = next.nextElementSibling;
      if (drawn === next) {
        next = next.nextElementSibling;
      } else {
        this.list.insertBefore(drawn, next);
        this.links.append(...lines);
        moved = true;
      }
    }
    const dense = nodes.length > FEW;
    if (moved || this.dense !== dense) {
      this.dense = dense;
      for (const { drawn } of nodes) drawn.tabIndex = -1;
      if (!dense) for (const { drawn } of nodes) drawn.removeAttribute("tabindex");
      else if (nodes.length) nodes[0].drawn.tabIndex = 0;
      return true;
    }
    return false;
  }

  /** Arrow keys go from tile to tile. */
  walk(event) {
    const tiles = [...this.list.children];
    const at = tiles.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: tiles.length - 1 }[event.key];
    if (!(to in tiles)) return;
    event.preventDefault();
    tiles[at].tabIndex = -1;
    tiles[to].tabIndex = 0;
    tiles[to].focus();
  }

  /** From the gateway to each node: beside each other where there is room, else down along the edge. */
  drawLines() {
    if (this.dense || !this.drawn.isConnected) return;
    const { left, top } = this.map.getBoundingClientRect();
    const hub = this.hub.getBoundingClientRect();
    for (const { drawn, lines } of this.nodes.values()) {
      const node = drawn.getBoundingClientRect();
      const [x, y] = [node.left - left, node.top - top + node.height / 2];
      const beside = hub.right <= node.left;
      const [x0, y0] = beside ? [hub.right - left, hub.top - top + hub.height / 2] : [hub.left - left + 9, hub.bottom - top];
      const bend = (x - x0) / 2;
      const path = beside ? `M${x0} ${y0}C${x0 + bend} ${y0} ${x - bend} ${y} ${x} ${y}` : `M${x0} ${y0}V${y - 8}Q${x0} ${y} ${x0 + 8} ${y}H${x}`;
      for (const line of lines) set(line, "d", path);
    }
  }
}

// --- the gateway's totals over the last minutes ---

const MINUTES = 3;
const LANES = ["failures", "retries", "hedges"];

class Traffic {
  rates = new Rates();
  points = []; // one a second: { at, rates, away }

  take(at, totals, away) {
    const rates = this.rates.of(at, totals);
    for (const tile of byId("totals").children) {
      const [now, all] = [tile.querySelector("b"), tile.querySelector("dd > small")];
      say(now, perSecond(rates[tile.dataset.of]));
      say(all, text.total(whole.format(totals[tile.dataset.of])));
    }
    const last = this.points.at(-1);
    if (last && (last.at > at || totals.requests < last.totals.requests)) this.points = [];
    if (!(this.points.length && at - this.points.at(-1).at < 1000)) this.add(at, totals, away);
    this.draw(at);
    set(byId("chart"), "aria-label", text.chart(perSecond(rates.requests), perSecond(rates.failures)));
  }

  add(at, totals, away) {
    const last = this.points.at(-1);
    const rate = ([name, n]) => [name, last ? (n - last.totals[name]) * 1000 / (at - last.at) : 0];
    this.points.push({ at, totals, away, rates: Object.fromEntries(Object.entries(totals).map(rate)) });
    while (this.points.length && this.points[0].at < at - MINUTES * 60_000 - 2000) this.points.shift();
  }

  draw(now) {
    const chart = byId("chart");
    const [width, height] = [chart.clientWidth, chart.clientHeight];
    const lane = height / 12;
    const floor = height - lane * (LANES.length + 1.4);
    const x = (at) => width * (1 - (now - at) / (MINUTES * 60_000));
    const most = scale(Math.max(4, ...this.points.map(({ rates }) => rates.requests)));
    const y = (rate) => floor - (floor - 14) * rate / most;
    const points = this.points.filter(({ at }) => x(at) >= 0).slice(1);
    const top = points.map(({ at, rates }) => `${x(at).toFixed(1)} ${y(rates.requests).toFixed(1)}`).join("L");
    const shade = points.filter(({ away }) => away).map(({ at }) => `M${x(at).toFixed(1)} 8V${floor}h${-width / MINUTES / 60 - .5}V8Z`).join("");
    const minutes = Array.from({ length: MINUTES }, (_, index) => index + 1);
    const shown = [
      element("path", "", { class: "away", d: shade }),
      element("path", "", { class: "grid", d: `M0 ${floor}H${width}M0 14H${width}` + minutes.map((n) => `M${x(now - n * 60_000)} ${floor}v4`).join("") }),
      element("text", `${whole.format(most)}${text.perSecond}`, { x: 0, y: 10 }),
      ...(points.length ? [
        element("path", "", { class: "area", d: `M${x(points[0].at)} ${floor}L${top}L${x(points.at(-1).at)} ${floor}Z` }),
        element("path", "", { class: "line", d: `M${top}` }),
      ] : []),
      ...minutes.slice(0, -1).map((n) => element("text", `−${duration(n * 60)}`, { x: x(now - n * 60_000), y: floor + lane * .95, "text-anchor": "middle" })),
      ...LANES.flatMap((name, index) => this.lane(name, points, x, width, floor + lane * (index + 2.2), lane)),
    ];
    chart.replaceChildren(...shown);
  }

  /** What should not happen often, each second of it a stroke: one is seen, many are tall. */
  lane(name, points, x, width, y, lane) {
    const tall = (rate) => lane * Math.min(.85, .35 + .15 * Math.log10(1 + rate));
    const strokes = points.filter(({ rates }) => rates[name] > 0).map(({ at, rates }) => `M${x(at).toFixed(1)} ${y}v${-tall(rates[name]).toFixed(1)}`);
    return [
      element("path", "", { class: "grid", d: `M0 ${y}H${width}` }),
      element("path", "", { class: "lane", "data-of": name, d: strokes.join("") }),
      element("text", text[name], { x: 0, y: y - 2 }),
    ];
  }
}

/** A round number that is not below this one. */
const scale = (most) => {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 5, 10].map((n) => n * power).find((n) => n >= most);
};

// --- the registry and what happened ---

const drawRegistry = (services) => {
  const place = byId("registry");
  while (place.children.length > services.length) place.lastElementChild.remove();
  while (place.children.length < services.length) place.append(copyOf("registry-template"));
  services.forEach(({ service, registry, versions }, index) => {
    const drawn = place.children[index];
    const nodes = Object.values(versions).reduce((sum, n) => sum + n, 0);
    set(drawn, "data-link", registry.state);
    say(drawn.querySelector(".link"), text.link[registry.state](service, nodes));
    const facts = [
      [text.revision, whole.format(registry.revision)],
      [text.age, text.ago(duration(registry.age_seconds))],
      ...(registry.stale_for_seconds === null ? [] : [[text.stale, duration(registry.stale_for_seconds)]]),
      ...(registry.skipped_entries ? [[text.skipped, whole.format(registry.skipped_entries)]] : []),
    ];
    const list = drawn.querySelector("dl");
    if (list.children.length !== 2 * facts.length) list.replaceChildren(...facts.flatMap(() => [element("dt"), element("dd")]));
    facts.flat().forEach((words, at) => say(list.children[at], words));
  });
};

const inWords = ({ kind, why, instance, version, nodes, service }, several) => {
  const who = instance === null ? text.nodes(nodes) : text.named(instance, version);
  return (several ? `${service}: ` : "") + text.happened[kind](who, text.why[why]);
};

let newest = 0;
let lastUptime = 0;
const drawEvents = (events, uptime, several) => {
  if (uptime < lastUptime) { // a gateway that began anew, and counts from 1
    byId("events").replaceChildren();
    newest = 0;
  }
  lastUptime = uptime;
  const fresh = events.filter((event) => event.number > newest);
  if (fresh.length === 0) return;
  const began = newest === 0;
  newest = fresh.at(-1).number;
  for (const event of fresh) {
    const drawn = element("li", "", { "data-kind": event.kind });
    const time = element("time", clock.format(Date.now() - (uptime - event.at) * 1000));
    drawn.append(time, element("span", inWords(event, several)));
    byId("events").prepend(drawn);
  }
  while (byId("events").children.length > 50) byId("events").lastElementChild.remove();
  if (!began) say(byId("announcer"), fresh.map((event) => inWords(event, several)).join(". "));
};

// --- the feed ---

const known = new Map();
const traffic = new Traffic();

const draw = (at, { uptime_seconds, totals, services, events }) => {
  const states = services.map(({ registry }) => registry.state);
  const away = states.some((state) => state !== "connected");
  document.body.dataset.registry = away ? "away" : "connected";
  for (const told of services) {
    if (!known.has(told.service)) {
      known.set(told.service, new Service(told.service));
      byId("services").append(known.get(told.service).drawn);
    }
    known.get(told.service).take(at, told);
  }
  traffic.take(at, totals, away);
  drawRegistry(services);
  drawEvents(events, uptime_seconds, services.length > 1);
};

const feed = (state) => {
  document.body.dataset.feed = state;
  say(byId("feed"), state === "live" ? text.live : text.lost);
};

const follow = () => {
  const events = new EventSource("api/events");
  events.addEventListener("open", () => feed("live"));
  events.addEventListener("error", () => {
    feed("away");
    // A browser tries again by itself, but for answers it does not understand.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 1000);
  });
  events.addEventListener("state", (event) => draw(Number(event.lastEventId), JSON.parse(event.data)));
};

document.documentElement.lang = language;
for (const place of document.querySelectorAll("[data-text]")) place.textContent = text[place.dataset.text];
say(byId("feed"), "…");
follow();

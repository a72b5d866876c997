// Draws what /api/events tells. Every event is the whole state, so a page that reconnects is right at once.
"use strict";

const element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

const node = (instance) => {
  const drawn = element("li", "", {
    "data-instance": instance.instance,
    "data-version": instance.version ?? "",
    "data-state": instance.state,
  });
  const tags = Object.entries(instance.tags).map(([key, value]) => `${key}=${value}`).join(", ");
  const why = instance.ejected ? `set aside: ${instance.ejected}` : instance.state;
  drawn.append(
    element("div", instance.instance, { class: "address" }),
    element("div", tags || "no tags"),
    element("div", `${why} · ${instance.in_flight} in flight`),
  );
  return drawn;
};

const registry = ({ state, revision, skipped_entries, stale_for_seconds }) => {
  const stale = stale_for_seconds === null ? "" : `, this list is ${stale_for_seconds} s old`;
  const skipped = skipped_entries ? `, ${skipped_entries} entries skipped` : "";
  return `registry ${state}, revision ${revision}${stale}${skipped}`;
};

const service = (known) => {
  const drawn = element("section", "");
  const nodes = element("ul", "", { class: "nodes", "aria-label": `instances of ${known.service}` });
  nodes.append(...known.instances.map(node));
  const title = `${known.service}: ${known.instances.length} instances`;
  drawn.append(element("h2", title), element("p", registry(known.registry)), nodes);
  return drawn;
};

const feed = document.getElementById("feed");
const events = new EventSource("api/events");
events.addEventListener("open", () => { feed.textContent = "live"; });
events.addEventListener("error", () => { feed.textContent = "the gateway is away, trying again …"; });
events.addEventListener("state", (event) => {
  const { services } = JSON.parse(event.data);
  const away = services.some((known) => known.registry.state !== "connected");
  document.body.dataset.registry = away ? "away" : "connected";
  document.getElementById("services").replaceChildren(...services.map(service));
});

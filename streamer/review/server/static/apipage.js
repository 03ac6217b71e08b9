// The API in words, from what it says of itself: no page of somebody else's is loaded for that.

import * as api from "./api.js";
import { byId, el } from "./dom.js";

const named = (schema) => schema?.$ref?.split("/").at(-1);

function type(schema) {
  if (!schema) return "";
  if (schema.anyOf) return schema.anyOf.map(type).join(" or ");
  if (schema.type === "array") return `list of ${type(schema.items)}`;
  return schema.type ?? named(schema) ?? "any";
}

function rows(fields) {
  return el("table", {}, el("tbody", {}, fields.map(([name, schema, needed, about]) =>
    el("tr", {}, el("th", { scope: "row" }, el("code", { text: name })), el("td", { class: "small", text: `${type(schema)}${needed ? "" : ", optional"}` }), el("td", { class: "small", text: about ?? "" })))));
}

function operation(spec, path, method, one) {
  const body = spec.components?.schemas?.[named(one.requestBody?.content?.["application/json"]?.schema)];
  const given = (one.parameters ?? []).map((each) => [each.name, each.schema, each.required, each.description ?? each.schema.description]);
  const posted = Object.entries(body?.properties ?? {}).map(([name, schema]) => [name, schema, (body.required ?? []).includes(name), schema.description]);
  return el("section", {}, el("h2", {}, el("code", { text: `${method.toUpperCase()} ${path}` })), el("p", { text: one.summary ?? "" }),
    given.length ? rows(given) : null, posted.length ? [el("h3", { text: "Body" }), rows(posted)] : null);
}

try {
  const spec = await api.get("openapi.json");
  byId("operations").replaceChildren(...Object.entries(spec.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => operation(spec, path, method, one))));
} catch (error) {
  byId("notice").textContent = `${error.message} Open this page from the review page.`;
  byId("notice").hidden = false;
}

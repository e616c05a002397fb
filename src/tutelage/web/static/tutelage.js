// The browser's half of the page: keys, light and dark, and what is typed but not yet kept.
// Texts are only ever set as values or textContent.
"use strict";
window.tutelage = (() => {
  const LOOK = "tutelage_look";
  const shell = () => document.querySelector(".tt-shell");
  const user = () => shell()?.dataset.ttUser ?? "";

  // --- light and dark
  function look(value) {
    document.cookie = `${LOOK}=${value}; path=/; max-age=31536000; samesite=lax`;
    setDark({ light: false, dark: true }[value] ?? null);
  }

  // --- keys
  const NAMED = 2; // names of keys that are no character are longer than one
  let chord = 0; // when "g" was pressed

  function typing(target) {
    if (!(target instanceof HTMLElement)) return false;
    if (target.isContentEditable || target instanceof HTMLTextAreaElement) return true;
    if (target instanceof HTMLSelectElement) return true;
    const quiet = ["checkbox", "radio", "button", "submit", "range"];
    return target instanceof HTMLInputElement && !quiet.includes(target.type);
  }

  function nameOf(event) {
    const parts = [];
    if (event.ctrlKey || event.metaKey) parts.push("ctrl");
    if (event.altKey) parts.push("alt");
    if (event.shiftKey && event.key.length >= NAMED) parts.push("shift");
    parts.push(event.key === " " ? "Space" : event.key);
    return parts.join("+");
  }

  function bound() {
    return [...document.querySelectorAll("[data-tt-keys]")].flatMap((one) => JSON.parse(one.dataset.ttKeys));
  }

  function onKey(event) {
    if (event.isComposing || event.defaultPrevented || !event.key) return;
    const command = event.ctrlKey || event.metaKey;
    if (typing(event.target) && !command) return;
    if (document.querySelector(".q-dialog, .q-menu")) return;
    const pressing = event.target instanceof Element && event.target.closest("button, a, summary");
    if (pressing && (event.key === "Enter" || event.key === " ")) return;
    const key = nameOf(event);
    const now = Date.now();
    if (now - chord < 1500) {
      chord = 0;
      const path = JSON.parse(shell()?.dataset.ttGo ?? "{}")[key];
      if (path) {
        event.preventDefault();
        location.assign(path);
        return;
      }
    }
    const field = document.querySelector(`[data-tt-focus="${CSS.escape(key)}"]`);
    if (field) { // at once, so that the next letter is text and no key
      event.preventDefault();
      field.focus();
      return;
    }
    if (bound().includes(key)) {
      event.preventDefault();
      if (!event.repeat || key.includes("Arrow")) emitEvent("tt_key", key);
    } else if (key === "g") {
      chord = now;
    }
  }

  // --- what is typed: in localStorage until the server says that it has it
  const slot = (item) => `tt:${user()}:${item}`;

  function fingerprint(text) {
    let found = 0x811c9dc5;
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      found = Math.imul(found ^ (unit & 0xff), 0x01000193);
      found = Math.imul(found ^ (unit >> 8), 0x01000193);
    }
    return found >>> 0;
  }

  // An entry holds the text and the numbers of the texts that led to it, the server's first. A
  // server that holds one of those is merely behind; one that holds another text is not overwritten.
  const STEPS = 300;

  function entryOf(item) {
    try {
      return JSON.parse(localStorage.getItem(slot(item)));
    } catch {
      return null;
    }
  }

  function write(item, entry) {
    try {
      localStorage.setItem(slot(item), JSON.stringify(entry));
    } catch (error) {
      console.warn("this browser keeps no drafts", error);
    }
  }

  function remember(area) {
    const item = area?.dataset?.ttDraft;
    if (!item) return;
    const steps = entryOf(item)?.steps ?? [Number(area.dataset.ttBase)];
    write(item, { text: area.value, steps: [...steps, fingerprint(area.value)].slice(-STEPS) });
  }

  function saved(item, print) {
    document.querySelectorAll("textarea[data-tt-draft]").forEach((area) => {
      if (area.dataset.ttDraft === item) area.dataset.ttBase = print;
    });
    const entry = entryOf(item);
    if (entry && fingerprint(entry.text) === print) forget(item);
  }

  function forget(item) {
    localStorage.removeItem(slot(item));
  }

  function put(area, text) {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function bringBack(area) {
    const item = area.dataset.ttDraft;
    if (area.dataset.ttBack === item) return;
    area.dataset.ttBack = item;
    area.dataset.ttBase = fingerprint(area.value);
    area.closest(".tt-editor")?.querySelector(".tt-other")?.remove();
    const entry = entryOf(item);
    if (!entry) return;
    if (entry.text === area.value) forget(item);
    else if (entry.steps.includes(Number(area.dataset.ttBase))) put(area, entry.text);
    else offer(area, item, entry.text);
  }

  // The text was changed elsewhere meanwhile: both are kept, and the person chooses.
  function offer(area, item, text) {
    const bar = document.createElement("div");
    bar.className = "tt-other tt-notice tt-warn";
    bar.setAttribute("role", "status");
    const said = document.createElement("p");
    said.textContent = "This browser kept another text of yours, and this one was changed since.";
    const choose = (name, work) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "tt-link";
      button.textContent = name;
      button.addEventListener("click", () => {
        bar.remove();
        forget(item);
        work();
      });
      return button;
    };
    bar.append(said, choose("Use the other text", () => put(area, text)), choose("Drop it", () => {}));
    area.closest(".tt-editor")?.append(bar);
  }

  function whenReady(work) {
    if (window.did_handshake) work();
    else setTimeout(() => whenReady(work), 20);
  }

  function watchDrafts() {
    const look = () => document.querySelectorAll("textarea[data-tt-draft]").forEach(bringBack);
    whenReady(() => {
      look();
      new MutationObserver(look).observe(document.body, {
        childList: true, subtree: true, attributes: true, attributeFilter: ["data-tt-draft"],
      });
    });
  }

  // --- the menu: where one is stands in sight
  function showHere() {
    if (!matchMedia("(min-width: 1024px)").matches) return;
    document.querySelector(".tt-nav [aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  // --- a POST without a page of its own; web/auth checks where it comes from
  function post(path) {
    const form = document.createElement("form");
    form.method = "post";
    form.action = path;
    const token = document.querySelector('meta[name="tt-csrf"]')?.content;
    if (token) {
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = "csrf";
      field.value = token;
      form.append(field);
    }
    document.body.append(form);
    form.submit();
  }

  document.addEventListener("keydown", onKey);
  document.addEventListener("input", (event) => remember(event.target), true);
  document.addEventListener("visibilitychange", () => {
    if (window.did_handshake) emitEvent("tt_visible", !document.hidden);
  });
  document.addEventListener("DOMContentLoaded", () => {
    const popup = document.getElementById("popup");
    popup?.setAttribute("role", "status");
    watchDrafts();
    whenReady(showHere);
  });
  return { look, saved, forget, post, fingerprint };
})();

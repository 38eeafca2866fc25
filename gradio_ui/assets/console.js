// The live half of the page: looks at the server when there is news, and hands on what a person does.
const airmedic = (() => {
  const PAGES = { c: "chat", i: "incidents", s: "status", t: "timeline", l: "log", m: "metrics" };
  const DEFAULTS = { page: "incidents", filter: "Open", q: "", severity: "", cause: "", words: "", level: "", window: "day" };
  const AGAIN = 1500; // ms until the server is asked again after it was silent
  const DRAW_AGAIN = 15000; // ms between two drawings of a plot that nobody asked for
  const state = { ...DEFAULTS, shown: {}, cursor: "", first: 1 };
  const turns = []; // the pages of the list that were turned
  let revision = "", build = "", looking = null, drawnAt = 0, editing = false, started = false, lastG = 0;

  const root = document.documentElement;
  const find = (selector) => document.querySelector(selector);
  const flag = (name, on) => (root.dataset[name] = on ? "yes" : "no");
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const url = (path) => `${location.pathname.replace(/\/+$/, "")}/${path}`;
  const field = (id) => find(`#${id} textarea, #${id} input`);

  // --- times, in the reader's zone ---------------------------------------------------------------------
  const pad = (n) => String(n).padStart(2, "0");
  const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
  const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  const span = (s) =>
    s < 60 ? `${Math.max(0, Math.floor(s))} s` : s < 5400 ? `${Math.floor(s / 60)} min`
      : s < 129600 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const spelled = (at, form, now) => {
    const today = day(at) === day(now);
    if (form === "clock") return today ? clock(at) : `${day(at).slice(5)} ${clock(at)}`;
    if (form === "age") return span((now - at) / 1000);
    if (form === "left") return at > now ? `${span((at - now) / 1000)} left` : "time is over";
    return today ? `today ${clock(at)}` : `${day(at)} ${clock(at)}`;
  };
  const spell = (within, now = new Date()) => {
    for (const node of within.querySelectorAll("time[datetime]")) {
      const at = new Date(node.dateTime);
      if (isNaN(at)) continue;
      const words = spelled(at, node.dataset.form, now);
      if (node.textContent !== words) node.textContent = words;
      if (!node.title) node.title = at.toLocaleString();
    }
  };

  // --- showing -----------------------------------------------------------------------------------------
  const put = (id, html) => {
    const element = document.getElementById(id);
    if (!element || !airmedicMorph(element, html)) return false;
    spell(element);
    return true;
  };
  const parts = (given) => Object.entries(given).map(([id, html]) => put(id, html) && id).filter(Boolean);
  const trouble = (html) => put("am-trouble", html);
  const awayWords = '<div class="am-notice am-bad"><strong>No connection.</strong><span>Airmedic does not answer. The page goes on by itself when it is back.</span></div>';
  let toastTimer = 0;
  const toast = (html) => {
    put("am-toast", html);
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => put("am-toast", ""), 7000);
  };
  const clip = (words) => (words.length > 200 ? `${words.slice(0, 199)}…` : words);

  const mark = () => {
    for (const row of document.querySelectorAll("#am-incidents .am-row")) {
      if (Number(row.dataset.incident) === state.shown.number) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    for (const button of document.querySelectorAll(".am-nav [data-page]")) {
      if (button.dataset.page === state.page) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
  };

  const named = (name) => (name === "page" ? "view" : name); // in the address: `page` is Gradio's own word
  const address = () => {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value) query.set(named(name), state[name]);
    if (state.shown.number) query.set("incident", state.shown.number);
    return `${location.pathname}${query.size ? `?${query}` : ""}`;
  };
  const remember = () => history.replaceState(null, "", address());

  // --- asking the server -------------------------------------------------------------------------------
  const ask = async (path, given = {}) => {
    const answer = await fetch(url(path), { credentials: "same-origin", ...given });
    if (answer.status === 401) {
      location.reload(); // to the sign-in page; the address keeps the place
      throw new Error("signed out");
    }
    const kind = answer.headers.get("content-type") || "";
    const body = kind.includes("json") ? await answer.json() : null;
    if (body === null) throw new Error("away");
    return { ok: answer.ok, body };
  };
  const post = (path, body) =>
    ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

  const refresh = async () => {
    looking?.abort();
    const mine = (looking = new AbortController());
    const query = new URLSearchParams({ ...state, shown: JSON.stringify(state.shown) });
    try {
      const { ok, body } = await ask(`view?${query}`, { signal: mine.signal });
      if (mine !== looking) return;
      if (!ok) return trouble(body.html || awayWords);
      show(body);
    } catch (error) {
      if (error.name !== "AbortError") trouble(awayWords);
    }
  };

  const show = (body) => {
    trouble("");
    const changed = parts(body.parts);
    root.dataset.role = body.role;
    if (body.shown) {
      state.shown = body.shown;
      flag("asks", body.asks);
      flag("held", body.held);
      flag("escalated", body.escalated);
      flag("shown", body.shown.number);
      if (!body.asks) edit(false);
      const approve = find("#am-approve");
      if (approve && body.asks) approve.textContent = `Approve #${body.shown.number}`;
    }
    mark();
    if (changed.includes("am-figures")) draw("figures");
  };

  const draw = (what) => {
    drawnAt = Date.now();
    find(`#am-draw-${what}`)?.click();
  };

  const listen = async () => {
    for (;;) {
      while (document.hidden) await sleep(500);
      try {
        const { ok, body } = await ask(`news?seen=${encodeURIComponent(revision)}`);
        if (!ok) throw new Error("away");
        if (build && body.build !== build) return location.reload();
        build = body.build;
        if (body.revision === revision) continue;
        revision = body.revision;
        if (revision === "away") throw new Error("away");
        await refresh();
        const idle = Date.now() - drawnAt > DRAW_AGAIN && !find("#am-plot-story:hover");
        if (state.page === "timeline" && idle) draw("story");
      } catch (error) {
        trouble(awayWords);
        await sleep(AGAIN);
        revision = "";
      }
    }
  };

  // --- what a person does ------------------------------------------------------------------------------
  const choose = (name, value) => {
    const given = value ?? "";
    if (state[name] === given) return;
    state[name] = given;
    Object.assign(state, { cursor: "", first: 1 });
    turns.length = 0;
    remember();
    refresh();
  };

  const go = (page) => {
    state.page = page;
    root.dataset.page = page;
    remember();
    mark();
    if (page === "chat") airmedicChat.open();
    refresh();
    if (page === "timeline") setTimeout(() => draw("story"), 50);
    if (page === "metrics") setTimeout(() => draw("figures"), 50);
  };

  const open = (number) => {
    Object.assign(state, { shown: number ? { number } : {}, page: "incidents" });
    edit(false);
    for (const id of ["am-said", "am-raw"]) put(id, "");
    type("am-message", "");
    type("am-close-reason", "");
    flag("asks", false);
    flag("held", false);
    flag("escalated", false);
    root.dataset.page = "incidents";
    remember();
    const shown = refresh();
    if (number && matchMedia("(max-width: 800px)").matches) scrollTo({ top: 0 });
    return shown;
  };

  const type = (id, words) => {
    const input = field(id);
    if (!input || input.value === words) return;
    input.value = words;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };

  const edit = (on) => {
    editing = on;
    flag("editing", on);
    if (on) find("#am-form")?.querySelector("input, textarea, select")?.focus();
  };

  const typed = (form) => {
    const values = {};
    for (const input of form.querySelectorAll("[name]")) {
      if (input.type === "radio" && !input.checked) continue;
      values[input.name] = input.type === "checkbox" ? input.checked : input.value;
    }
    return values;
  };

  const deed = async (body) => {
    flag("busy", true);
    try {
      return (await post("deed", body)).body;
    } catch (error) {
      return { done: false, html: awayWords };
    } finally {
      flag("busy", false);
    }
  };

  const decide = async (what, message) => {
    const values = what === "edit" ? typed(find("#am-form")) : {};
    const said = await deed({ what, shown: state.shown, message: message || "", values });
    put("am-said", said.html || "");
    find("#am-said")?.scrollIntoView({ block: "nearest" });
    if (said.done) {
      state.shown = { number: state.shown.number };
      edit(false);
      flag("asks", false);
      put("am-asked", "");
    }
    await refresh();
    return said.done ? "" : message;
  };

  const showLog = async () => {
    const said = await deed({ what: "log", shown: state.shown });
    put("am-raw", said.html || "");
    find("#am-raw .am-proof")?.scrollIntoView({ block: "center" });
  };

  const asked = (title, words, label, reason = false) =>
    new Promise((done) => {
      const dialog = document.createElement("dialog");
      dialog.className = "am-dialog";
      const head = document.createElement("h3");
      const text = document.createElement("p");
      const input = document.createElement("textarea");
      const row = document.createElement("div");
      const yes = document.createElement("button");
      const no = document.createElement("button");
      [head.textContent, text.textContent, yes.textContent, no.textContent] = [title, words, label, "Cancel"];
      yes.className = "am-button am-button-main";
      no.className = "am-button";
      input.placeholder = "Reason (optional)";
      row.className = "am-switches";
      row.append(yes, no);
      dialog.append(head, text, ...(reason ? [input] : []), row);
      const end = (value) => {
        dialog.remove();
        done(value);
      };
      yes.onclick = () => end({ reason: input.value });
      no.onclick = () => end(null);
      dialog.oncancel = () => end(null);
      document.querySelector(".gradio-container").append(dialog);
      dialog.showModal();
      (reason ? input : yes).focus();
    });

  const toggle = async (button) => {
    const { switch: name, value, confirm } = button.dataset;
    if (!(await asked(`${button.textContent}?`, confirm, button.textContent))) return;
    const said = await deed({ what: "control", values: { [name]: value === "true" } });
    toast(said.html || "");
    refresh();
  };

  const deedInPlace = async (button) => {
    const shown = JSON.parse(button.dataset.shown);
    const what = button.dataset.deed;
    const sure = what !== "reject" || (await asked(`Reject #${shown.number}?`, "Nothing is touched.", "Reject", true));
    if (!sure) return;
    const said = await deed({ what, shown, message: sure.reason || "" });
    const place = document.createElement("div");
    place.innerHTML = said.html || "";
    button.closest(".am-switches").replaceWith(place);
    refresh();
  };

  const rate = async (form) => {
    const values = typed(form);
    const right = { yes: true, no: false }[values.cause_right];
    const chosen = { rating: Number(values.rating || 0), comment: values.comment };
    if (right !== undefined) chosen.cause_right = right;
    if (right === false && values.cause) chosen.cause = values.cause;
    const said = await deed({ what: "feedback", shown: { number: state.shown.number }, values: chosen });
    toast(said.html || "");
    if (said.done) form.reset();
    refresh();
  };

  const turn = (button) => {
    if (button.dataset.turn === "back") Object.assign(state, turns.pop() || { cursor: "", first: 1 });
    else {
      turns.push({ cursor: state.cursor, first: state.first });
      const shown = document.querySelectorAll("#am-incidents .am-row").length;
      Object.assign(state, { cursor: button.dataset.cursor, first: state.first + shown });
    }
    refresh().then(() => find(".am-list-col")?.scrollTo({ top: 0 }));
  };

  const leave = async () => {
    await fetch(url("session"), { method: "DELETE", headers: { "content-type": "application/json" }, body: "{}" });
    location.reload();
  };

  const onClick = (event) => {
    const on = (selector) => event.target.closest?.(selector);
    let hit;
    if ((hit = on(".am-nav [data-page]"))) go(hit.dataset.page);
    else if ((hit = on("[data-incident]"))) open(Number(hit.dataset.incident)).then(() => hit.dataset.edit && edit(true));
    else if ((hit = on("[data-turn]"))) turn(hit);
    else if ((hit = on("[data-switch]"))) toggle(hit);
    else if ((hit = on("[data-deed]"))) deedInPlace(hit);
    else if (on("#am-back")) open(null);
    else if (on("#am-sign-out")) leave();
  };

  // --- keys --------------------------------------------------------------------------------------------
  const KEYS = [
    ["j / k", "next / previous incident"], ["Enter", "open it"], ["a", "approve (asks first)"],
    ["e", "edit the plan"], ["r", "reject, with a reason"], ["/", "search"], ["Esc", "leave a field"],
    ["g then c i s t l m", "chat, incidents, status, timeline, log, metrics"], ["?", "this list"],
  ];
  const help = () => asked("Keys", KEYS.map(([keys, words]) => `${keys}: ${words}`).join("\n"), "Close");
  const step = (by) => {
    const rows = [...document.querySelectorAll("#am-incidents .am-row")];
    const at = rows.indexOf(document.activeElement);
    const here = at >= 0 ? at : rows.findIndex((row) => row.hasAttribute("aria-current"));
    rows[Math.min(rows.length - 1, Math.max(0, here + by))]?.focus();
  };
  const byKey = async (what) => {
    if (root.dataset.asks !== "yes" || root.dataset.role === "viewer" || state.page !== "incidents") return;
    if (what === "edit") return edit(true);
    const name = what === "approve" ? "Approve" : "Reject";
    const words = find("#am-asked .am-ask")?.textContent || "";
    const sure = await asked(`${name} #${state.shown.number}?`, clip(words), name, what === "reject");
    if (sure) type("am-message", await decide(what, sure.reason || field("am-message")?.value));
  };
  const onKey = (event) => {
    const typing = event.target.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select, dialog");
    if (event.key === "Escape" && typing) return event.target.blur?.();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (Date.now() - lastG < 1200 && PAGES[event.key]) {
      lastG = 0;
      event.preventDefault();
      return go(PAGES[event.key]);
    }
    const keys = {
      g: () => (lastG = Date.now()), j: () => step(1), k: () => step(-1), a: () => byKey("approve"),
      e: () => byKey("edit"), r: () => byKey("reject"), "?": help,
      "/": () => field({ incidents: "am-search", log: "am-words", chat: "am-say" }[state.page])?.focus(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  };

  // --- arriving ----------------------------------------------------------------------------------------
  const arrive = () => {
    const query = new URLSearchParams(location.search);
    for (const name of Object.keys(DEFAULTS)) if (query.has(named(name))) state[name] = query.get(named(name)).slice(0, 200);
    if (!Object.values(PAGES).includes(state.page)) state.page = "incidents";
    const number = Number(query.get("incident"));
    if (Number.isInteger(number) && number > 0 && number < 1e9) state.shown = { number };
    if (!started) {
      started = true;
      document.addEventListener("click", onClick);
      document.addEventListener("keydown", onKey);
      document.addEventListener("submit", (event) => {
        event.preventDefault();
        if (event.target.matches("[data-feedback]")) rate(event.target);
      });
      setInterval(() => document.hidden || spell(document), 1000);
      listen();
    }
    go(state.page);
    const { filter, q, severity, cause, words, level } = state;
    return [filter, q, severity, cause, words, level, state.window, state.window];
  };

  return {
    arrive, choose, decide, edit, showLog, put, spell, ask, post, url, field, type, toast, awayWords,
    reload: () => open(state.shown.number),
    say: (words) => airmedicChat.say(words),
    hint: (words) => airmedicChat.hint(words),
  };
})();
window.airmedic = airmedic;

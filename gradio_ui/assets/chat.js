// The chat: what is said goes to the server, and the answer is shown as it comes, drawn by the server.
const airmedicChat = (() => {
  const NAME = "airmedic-thread";
  const fresh = () => `t-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  let thread = sessionStorage.getItem(NAME) || fresh();
  let busy = false, hinting = 0, listening = false;

  const talk = () => document.getElementById("am-talk");
  const down = () => talk()?.scrollTo({ top: talk().scrollHeight });
  const near = () => talk().scrollHeight - talk().scrollTop - talk().clientHeight < 120;

  const open = async () => {
    sessionStorage.setItem(NAME, thread);
    if (!listening) {
      listening = true;
      document.addEventListener("click", onClick);
      document.addEventListener("keydown", onKey);
    }
    if (busy) return;
    try {
      const { ok, body } = await airmedic.ask(`chat?thread=${encodeURIComponent(thread)}`);
      if (!ok) return airmedic.put("am-talk", body.html || "");
      for (const [id, html] of Object.entries(body.parts)) airmedic.put(id, html);
      down();
    } catch (error) {
      airmedic.put("am-talk", airmedic.awayWords);
    }
  };

  const place = (html, cls) => {
    const element = document.createElement("div");
    element.className = cls;
    element.innerHTML = html;
    talk().append(element);
    return element;
  };

  const say = async (words) => {
    const message = (words || "").trim();
    if (!message) return "";
    if (busy) return words;
    busy = true;
    airmedic.put("am-hints", "");
    talk().querySelector(".am-empty, .am-chips") && airmedic.put("am-talk", "");
    const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    stream({ thread, message, timezone }).finally(() => {
      busy = false;
      talk().airmedicHtml = null;
      open();
    });
    return "";
  };

  const stream = async (body) => {
    let answer = null;
    try {
      const headers = { "content-type": "application/json" };
      const reply = await fetch(airmedic.url("chat"), { method: "POST", headers, body: JSON.stringify(body) });
      if (!reply.ok || !reply.body) throw new Error("away");
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          const piece = JSON.parse(line);
          if (piece.me) place(piece.me, "am-mine");
          answer ||= place("", "am-answer");
          const follow = near();
          airmedicMorph(answer, piece.html);
          airmedic.spell(answer);
          if (follow || piece.me) down();
        }
      }
    } catch (error) {
      (answer || place("", "am-answer")).insertAdjacentHTML("beforeend", airmedic.awayWords);
      await new Promise((done) => setTimeout(done, 2500));
    }
  };

  const hint = (words) => {
    clearTimeout(hinting);
    if (!words || !words.startsWith("/")) return airmedic.put("am-hints", "");
    hinting = setTimeout(async () => {
      try {
        const { ok, body } = await airmedic.ask(`chat/hints?q=${encodeURIComponent(words)}`);
        if (ok && airmedic.field("am-say").value === words) airmedic.put("am-hints", body.parts["am-hints"]);
      } catch (error) {
        airmedic.put("am-hints", "");
      }
    }, 120);
  };

  const complete = (words) => {
    airmedic.type("am-say", words);
    airmedic.field("am-say").focus();
  };

  const onClick = (event) => {
    const on = (selector) => event.target.closest?.(selector);
    let hit;
    if ((hit = on("[data-hint]"))) complete(hit.dataset.hint);
    else if ((hit = on("[data-say]"))) say(hit.dataset.say);
    else if ((hit = on("[data-thread]"))) {
      thread = hit.dataset.thread || fresh();
      open();
    }
  };
  const onKey = (event) => {
    const first = document.querySelector("#am-hints [data-hint]");
    if (event.key !== "Tab" || event.shiftKey || !first || !event.target.closest?.("#am-say")) return;
    event.preventDefault();
    complete(first.dataset.hint);
  };

  return { open, say, hint };
})();

// Times are sent in UTC; they are shown in the reader's zone, before the browser paints.
(() => {
  const pad = (n) => String(n).padStart(2, "0");
  const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
  const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  const age = (s) =>
    s < 60 ? `${Math.max(0, Math.floor(s))} s` : s < 5400 ? `${Math.floor(s / 60)} min`
      : s < 129600 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const spell = (node) => {
    const at = new Date(node.getAttribute("datetime"));
    if (isNaN(at)) return;
    const now = new Date();
    const form = node.dataset.form;
    const today = day(at) === day(now);
    let words = today ? `today ${clock(at)}` : `${day(at)} ${clock(at)}`;
    if (form === "clock") words = today ? clock(at) : `${day(at).slice(5)} ${clock(at)}`;
    if (form === "age") words = age((now - at) / 1000);
    if (node.textContent !== words) node.textContent = words;
    if (node.title !== at.toLocaleString()) node.title = at.toLocaleString();
  };
  const all = () => document.querySelectorAll("time[datetime]").forEach(spell);
  const start = () => {
    new MutationObserver(all).observe(document.body, { childList: true, subtree: true, characterData: true });
    setInterval(all, 1000);
    all();
  };
  if (document.body) start();
  else document.addEventListener("DOMContentLoaded", start);
})();

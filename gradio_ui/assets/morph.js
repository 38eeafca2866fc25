// Brings an element to the state of some markup and touches only what differs: focus, selection, what was
// typed, what is folded and how far was scrolled stay as they are. The markup is the server's own.
const airmedicMorph = (() => {
  const KEPT = new Set(["open", "aria-current"]); // attributes that belong to the reader
  const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id || "" : "");
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  const attributes = (old, fresh) => {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (!KEPT.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  };

  const one = (old, fresh) => {
    if (old.nodeType === 3) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== 1 || old.isEqualNode(fresh)) return;
    // A time is spelled in the reader's zone already; only another moment changes it.
    if (old.nodeName === "TIME" && old.dateTime === fresh.dateTime && old.dataset.form === fresh.dataset.form) return;
    attributes(old, fresh);
    children(old, fresh);
  };

  const children = (old, fresh) => {
    const keyed = new Map();
    for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const known = keyOf(wanted) ? keyed.get(keyOf(wanted)) : null;
      if (known && alike(known, wanted)) {
        if (known === at) at = at.nextSibling;
        else old.insertBefore(known, at);
        one(known, wanted);
      } else if (at && !keyOf(wanted) && alike(at, wanted)) {
        one(at, wanted);
        at = at.nextSibling;
      } else {
        old.insertBefore(wanted, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  return (element, html) => {
    if (element.airmedicHtml === html) return false;
    element.airmedicHtml = html;
    const template = document.createElement("template");
    template.innerHTML = html;
    children(element, template.content);
    return true;
  };
})();

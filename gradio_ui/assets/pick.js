element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-incident]');
  if (!row) return;
  const number = Number(row.dataset.incident);
  const here = new URL(window.location);
  here.searchParams.set('incident', number);
  window.history.replaceState(null, '', here);
  trigger('click', { incident: number });
});

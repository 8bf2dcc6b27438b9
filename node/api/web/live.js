// Follows the cluster: the server sends an event at every change, and the page
// takes its own new content. Without a connection the page says so.
(function () {
  const live = document.getElementById("live");
  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Requested-With": "live" } });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        document.getElementById("main").replaceWith(page.getElementById("main"));
      }
    } catch (e) { /* the event source reports it */ }
    busy = false;
    if (again) { again = false; refresh(); }
  }
  const changes = new EventSource("/ui/changes");
  changes.onmessage = function () { live.textContent = "live"; refresh(); };
  changes.onerror = function () { live.textContent = "not connected, trying again"; };
})();

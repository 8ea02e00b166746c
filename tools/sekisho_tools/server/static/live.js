// Refreshes the progress of a rollout in place. Without it the page still says everything when it is loaded again.
"use strict";
(() => {
  const region = document.querySelector("[data-refresh]");
  if (!region) return;
  const refresh = async () => {
    if (document.hidden || region.contains(document.activeElement)) return;
    try {
      const answer = await fetch(region.dataset.refresh, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) return;
      const text = await answer.text();
      if (text !== region.dataset.last) {
        region.dataset.last = text;
        // The server has escaped everything in it; the content security policy runs no script in it either.
        region.innerHTML = text;
      }
    } catch {
      // The server is away; the next round tries again.
    }
  };
  setInterval(refresh, 2000);
})();

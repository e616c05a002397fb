// When the connection is lost: is one still signed in, and is this page still one's own?
"use strict";
(() => {
  let asking = false;
  async function ask() {
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch(`/auth/alive?client_id=${encodeURIComponent(window.clientId ?? "")}`);
      if (answer.status === 401) {
        location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
      } else if (answer.status === 410) {
        location.reload();
      }
    } catch {
      // the server is away: the page tries again by itself
    } finally {
      asking = false;
    }
  }
  function watch() {
    if (!window.socket) {
      setTimeout(watch, 50);
      return;
    }
    window.socket.on("connect_error", ask);
    window.socket.on("disconnect", ask);
  }
  addEventListener("DOMContentLoaded", watch);
})();

"use strict";
// Live runs, by server-sent events. Without a script the page shows them as they were when loaded.
const list = document.getElementById("runs");
if (list && window.EventSource) {
  const before = new Map();
  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let at = 0;
    while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at += 1; }
    return `${at ? bytes.toFixed(1) : bytes} ${units[at]}`;
  };
  const words = (job, now) => {
    const last = before.get(job.database);
    const rate = last && now > last.now ? Math.max(0, job.dump_bytes - last.bytes) / (now - last.now) / 1000 : null;
    before.set(job.database, { now, bytes: job.dump_bytes });
    const parts = [job.phase, `${size(job.dump_bytes)} → ${size(job.archive_bytes)}`];
    if (rate !== null && job.phase === "running") { parts.push(`${rate.toFixed(1)} MB/s`); }
    if (job.waiting_for) { parts.push(`waits for ${job.waiting_for}`); }
    return parts.join(", ");
  };
  const draw = (jobs) => {
    const now = performance.now();
    const items = jobs.map((job) => {
      const item = document.createElement("li");
      const name = document.createElement("strong");
      name.textContent = job.database;
      item.append(name, ` ${words(job, now)}`);
      if (job.expected_bytes) {
        const bar = document.createElement("progress");
        bar.max = job.expected_bytes;
        bar.value = Math.min(job.dump_bytes, job.expected_bytes);
        bar.setAttribute("aria-label", `dump of ${job.database}`);
        item.append(bar);
      }
      return item;
    });
    list.replaceChildren(...items);
    document.getElementById("idle").hidden = items.length > 0;
  };
  let were = null;
  const events = new EventSource("/api/v1/events");
  events.addEventListener("runs", (event) => {
    const jobs = JSON.parse(event.data).jobs;
    draw(jobs);
    // When a run is over, the table has news.
    if (were > 0 && jobs.length === 0) { setTimeout(() => location.reload(), 1500); }
    were = jobs.length;
  });
}

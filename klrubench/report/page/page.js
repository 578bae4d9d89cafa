"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const layout = { margin: { t: 30, r: 10, l: 60, b: 50 }, height: 340, font: { size: 12 } };
  const config = { displaylogo: false, responsive: true, showSendToCloud: false };
  const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999"];

  function cellValue(row, column) {
    const cell = row.cells[column];
    const raw = cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent;
    const number = Number(raw);
    return raw !== "" && !Number.isNaN(number) ? number : raw;
  }

  function compare(a, b) {
    if (a === b) return 0;
    if (a === "" || a === "-") return 1;
    if (b === "" || b === "-") return -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a) < String(b) ? -1 : 1;
  }

  function sortable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.classList.add("sortable");
      head.addEventListener("click", function () {
        const down = head.classList.contains("up");
        heads.forEach(function (each) { each.classList.remove("up", "down"); });
        head.classList.add(down ? "down" : "up");
        const rows = Array.from(table.tBodies[0].rows);
        rows.sort(function (x, y) {
          const order = compare(cellValue(x, column), cellValue(y, column));
          return down ? -order : order;
        });
        rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
      });
    });
  }

  function filtered() {
    const wanted = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    Array.from(document.getElementById("runs").tBodies[0].rows).forEach(function (row) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every(function (word) { return text.includes(word); });
      shown += row.hidden ? 0 : 1;
    });
    document.getElementById("shown").textContent = shown + " runs shown";
  }

  function show(id) {
    const run = data.runs[id];
    if (!run) return;
    Array.from(document.querySelectorAll("#runs tr.chosen")).forEach(function (row) { row.classList.remove("chosen"); });
    const row = document.querySelector('#runs tr[data-id="' + id + '"]');
    if (row) row.classList.add("chosen");
    document.getElementById("run-title").textContent = run.title;
    document.getElementById("run-command").textContent = run.command + "\nklrubench explain " + id.slice(0, 12);
    document.getElementById("run-parts").textContent = run.parts;
    document.getElementById("run-manifest").textContent = run.manifest;
    const lines = data.lines.map(function (name, k) {
      return { x: run.t, y: run.y[k], name: name, mode: "lines", yaxis: name.includes("MiB/s") ? "y2" : "y", line: { color: colours[k] } };
    });
    Plotly.react("run-plot", lines, Object.assign({}, layout, {
      xaxis: { title: { text: "virtual time, s" } },
      yaxis: { title: { text: "%" }, rangemode: "tozero" },
      yaxis2: { overlaying: "y", side: "right", rangemode: "tozero", title: { text: "MiB/s" } },
      margin: { t: 30, r: 60, l: 60, b: 50 }, legend: { orientation: "h", y: 1.15 },
    }), config);
  }

  function bars(group, k) {
    const traces = group.policies.map(function (policy, p) {
      return {
        type: "bar", name: policy.name, x: group.settings, y: policy.y,
        error_y: { type: "data", symmetric: false, array: policy.above, arrayminus: policy.below },
        marker: { color: colours[p % colours.length], pattern: { shape: p < colours.length ? "" : "/" } },
      };
    });
    Plotly.newPlot("compare-" + k, traces, Object.assign({}, layout, {
      barmode: "group", height: 420, yaxis: { title: { text: "slowdown against all-DRAM, %" } },
      legend: { orientation: "h", y: 1.2 },
    }), config);
  }

  function sweep(one, k) {
    const traces = one.lines.map(function (line, p) {
      return {
        x: line.x, y: line.y, name: line.name, mode: "lines+markers", line: { color: colours[p % colours.length] },
        error_y: { type: "data", symmetric: false, array: line.above, arrayminus: line.below },
      };
    });
    Plotly.newPlot("sweep-" + k, traces, Object.assign({}, layout, {
      xaxis: { title: { text: one.parameter }, type: one.log ? "log" : "-" },
      yaxis: { title: { text: "slowdown against all-DRAM, %" } }, showlegend: true,
    }), config);
  }

  function figure(one) {
    Plotly.newPlot(one.id, one.traces, Object.assign({}, layout, { colorway: colours }, one.layout), config);
  }

  Array.from(document.querySelectorAll("table")).forEach(function (table) { if (table.tHead) sortable(table); });
  document.getElementById("filter").addEventListener("input", filtered);
  document.getElementById("runs").tBodies[0].addEventListener("click", function (event) {
    const row = event.target.closest("tr");
    if (row) show(row.dataset.id);
  });
  filtered();
  data.comparisons.forEach(bars);
  data.sweeps.forEach(sweep);
  data.figures.forEach(figure);
  show(data.first);
  document.body.dataset.ready = "yes";
})();

// The ledger: what each way to make the model cheaper costs, and the way to each point.
import { useState } from "preact/hooks";
import type { Group, Row } from "./api";
import { type Cost, costs, qualityText } from "./ledger";
import { Button, copyText, number, rate } from "./parts";
import { Mark, nameOf, Plot } from "./plot";
import { chatWith, go, ledger, menuOpen, refresh, setPaneModel, stopShown } from "./state";

const families: [string, string][] = [
  ["base", "the base"],
  ["quantize", "fewer bits"],
  ["prune", "fewer weights"],
  ["lowrank", "fewer ranks"],
  ["mixed", "several"],
  ["other", "other"],
];

function Command({ text }: { text: string }) {
  return (
    <div class="command">
      <code>{text}</code>
      <Button icon="copy" label="Copy the command" onClick={() => void copyText(text)} />
    </div>
  );
}

const quoted = (text: string) => (/^[\w./=:,@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function HowToGetOne() {
  return (
    <div class="empty">
      <h2>No ledger yet</h2>
      <p>
        A ledger is what frugal writes while it makes models cheaper: each way with its size, its loss of quality with error bars, its speed and its memory. Run
        several ways over one model and keep what they make:
      </p>
      <Command text="frugal sweep MODEL --recipe recipes/quickstart.yaml -o out --keep-models" />
      <p>Then serve the ledger; what was kept beside it is loaded when you talk to it:</p>
      <Command text="frugal serve MODEL --ledger out/ledger.jsonl" />
    </div>
  );
}

// How an answer can come from this point: it is served, or it is made again.
function Ways({ row, rows }: { row: Row; rows: Row[] }) {
  const name = row.served_as;
  const base = rows.find((one) => one.family === "base" && one.served_as)?.served_as;
  if (name) {
    const compare = (a: string, b: string) => {
      stopShown();
      setPaneModel("a", a);
      setPaneModel("b", b);
      go("#/compare");
    };
    return (
      <div class="ways">
        <button type="button" class="primary" onClick={() => chatWith(name)}>
          Chat with it
        </button>
        {base && base !== name && (
          <button type="button" class="plain" onClick={() => compare(base, name)}>
            Beside the base
          </button>
        )}
        {(["a", "b"] as const).map((pane) => (
          <button
            key={pane}
            type="button"
            class="plain"
            onClick={() => {
              setPaneModel(pane, name);
              go("#/compare");
            }}
          >
            {pane === "a" ? "Left column" : "Right column"}
          </button>
        ))}
      </div>
    );
  }
  return (
    <div class="ways">
      <p class="note">Its checkpoint is neither served nor in models/ beside the ledger.{row.chain.length > 0 && " To make it again:"}</p>
      {row.chain.length > 0 && <Command text={`frugal compress MODEL -o OUT ${row.chain.map((step) => `--step ${quoted(step)}`).join(" ")}`} />}
    </div>
  );
}

function Details({ row, rows, paired }: { row: Row; rows: Row[]; paired: boolean }) {
  const facts: [string, string][] = [
    ["size", costs[0].text(row)],
    ["bits per weight", row.bits_per_weight === undefined ? "" : number(row.bits_per_weight, 2)],
    ["perplexity", row.perplexity === undefined ? "" : number(row.perplexity, 2)],
    ["against the base", paired ? qualityText(row, true) : ""],
    ["same likeliest token", row.top1_agreement === undefined ? "" : `${number(100 * row.top1_agreement, 1)} %`],
    ["KL, nats", row.kl_mean === undefined ? "" : number(row.kl_mean, 4)],
    ...Object.entries(row.tasks).map(([task, score]): [string, string] => [task, `${number(100 * score, 1)} %`]),
    ["writes", row.decode_tps === undefined ? "" : `${rate(row.decode_tps)} tok/s`],
    ["reads", row.prefill_tps === undefined ? "" : `${rate(row.prefill_tps)} tok/s`],
    ["peak memory", costs[2].text(row)],
    ["made in", row.seconds_to_make && row.chain.length ? `${Number(row.seconds_to_make.toPrecision(row.seconds_to_make < 100 ? 2 : 3))} s` : ""],
  ];
  const fronts = costs.filter((cost) => cost.onFront(row)).map((cost) => cost.short.toLowerCase());
  return (
    <section class="details card" aria-label="The chosen point" aria-live="polite">
      <h2>
        <svg viewBox="-10 -10 20 20" aria-hidden="true">
          <Mark family={row.family} filled={fronts.length > 0} />
        </svg>
        {nameOf(row)}
        {row.served_as && <span class="badge">served{row.served_as !== nameOf(row) && ` as ${row.served_as}`}</span>}
      </h2>
      <p class="chain">{row.chain.length || row.runtime.length ? [...row.chain, ...row.runtime].join(" → ") : "the original, unchanged"}</p>
      <p class="note">{fronts.length ? `On the front of ${fronts.join(", ")}: no other point is as good in both and better in one.` : "Another point is as good and cheaper, or better at this cost."}</p>
      <dl class="facts">
        {facts.map(
          ([what, value]) =>
            value && (
              <div key={what}>
                <dt>{what}</dt>
                <dd>{value}</dd>
              </div>
            ),
        )}
      </dl>
      <Ways row={row} rows={rows} />
    </section>
  );
}

type Order = { column: number; down: boolean };

function Table({ rows, paired, selected, onSelect }: { rows: Row[]; paired: boolean; selected: Row | null; onSelect: (row: Row) => void }) {
  const [order, setOrder] = useState<Order>({ column: 1, down: true });
  const columns: { title: string; help: string; text: (row: Row) => string; sort: (row: Row) => number | string | undefined }[] = [
    { title: "Point", help: "as the recipe names it", text: nameOf, sort: nameOf },
    { title: "Size", help: "all weight files on disk", text: costs[0].text, sort: costs[0].of },
    { title: paired ? "Perplexity against base" : "Perplexity", help: "with two standard errors", text: (row) => qualityText(row, paired), sort: (row) => (paired ? row.ln_ratio : row.perplexity) },
    { title: "tok/s", help: "tokens written a second", text: (row) => (row.decode_tps === undefined ? "" : rate(row.decode_tps)), sort: (row) => row.decode_tps },
    { title: "Memory", help: "peak while evaluated", text: costs[2].text, sort: costs[2].of },
    { title: "Front", help: "no other point is as good in both and better in one", text: (row) => costs.filter((cost) => cost.onFront(row)).map((cost) => cost.short.toLowerCase()).join(", "), sort: (row) => -costs.filter((cost) => cost.onFront(row)).length },
  ];
  const key = columns[order.column].sort;
  const sorted = [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
    const sign = typeof x === "number" ? x - (y as number) : x.localeCompare(String(y));
    return order.down ? -sign : sign;
  });
  return (
    <div class="card table-card" tabIndex={0} role="region" aria-label="All points">
      <table>
        <thead>
          <tr>
            {columns.map((column, i) => (
              <th key={column.title} scope="col" aria-sort={order.column === i ? (order.down ? "descending" : "ascending") : undefined}>
                <button type="button" title={column.help} onClick={() => setOrder({ column: i, down: order.column === i && !order.down })}>
                  {column.title}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row, i) => (
            <tr key={i} class={row === selected ? "selected" : ""} onClick={() => onSelect(row)}>
              {columns.map((column, c) =>
                c === 0 ? (
                  <th key={c} scope="row">
                    <button type="button" aria-pressed={row === selected} onClick={() => onSelect(row)}>
                      <svg viewBox="-10 -10 20 20" aria-hidden="true">
                        <Mark family={row.family} filled={costs.some((cost) => cost.onFront(row))} />
                      </svg>
                      {column.text(row)}
                      {row.served_as && (
                        <span class="dot" title={`served as ${row.served_as}`}>
                          served
                        </span>
                      )}
                    </button>
                  </th>
                ) : (
                  <td key={c}>{column.text(row)}</td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Points({ group, all }: { group: Group; all: Row[] }) {
  const [cost, setCost] = useState<Cost>(costs[0]);
  const [machine, setMachine] = useState(0);
  const [chosen, setChosen] = useState<Row | null>(null);
  const many = group.machines.length > 1;
  const rows = all.filter((row) => (cost.id === "bytes" ? row.newest : row.machine === machine));
  const selected = (chosen && rows.includes(chosen) ? chosen : rows.find((row) => row.front.size && row.family !== "base")) ?? rows[0] ?? null;
  const present = families.filter(([family]) => rows.some((row) => row.family === family));
  return (
    <>
      <div class="row between">
        <div class="segments" role="group" aria-label="Cost">
          {costs.map((one) => (
            <button key={one.id} type="button" aria-pressed={one === cost} onClick={() => setCost(one)}>
              {one.short}
            </button>
          ))}
        </div>
        {many && cost.id !== "bytes" && (
          <select aria-label="Machine" value={machine} onChange={(event) => setMachine(Number(event.currentTarget.value))}>
            {group.machines.map((name, i) => (
              <option key={i} value={i}>
                {name}
              </option>
            ))}
          </select>
        )}
      </div>
      <div class="tradeoff-grid">
        <figure class="card">
          <Plot rows={rows} paired={group.paired} cost={cost} selected={selected} onSelect={setChosen} />
          <figcaption>
            {present.map(([family, words]) => (
              <span key={family}>
                <svg viewBox="-10 -10 20 20" aria-hidden="true">
                  <Mark family={family} filled={false} />
                </svg>
                {words}
              </span>
            ))}
            <span>filled: on the front</span>
            <span>bars: two standard errors</span>
          </figcaption>
          {group.in_short.length > 0 && (
            <ul class="in-short">
              {group.in_short.map((sentence) => (
                <li key={sentence}>{sentence}</li>
              ))}
            </ul>
          )}
        </figure>
        {selected && <Details row={selected} rows={all} paired={group.paired} />}
      </div>
      <Table rows={rows} paired={group.paired} selected={selected} onSelect={setChosen} />
      <p class="note">
        Measured on {group.text}. {group.machines.length === 1 ? `Machine: ${group.machines[0]}.` : "Rates and memory compare on one machine only."}
      </p>
    </>
  );
}

export function TradeOff() {
  const [place, setPlace] = useState(0);
  const rows = ledger.value?.rows ?? [];
  const groups = ledger.value?.groups ?? [];
  const group = groups[Math.min(place, groups.length - 1)];
  return (
    <main class="page" id="main">
      <header class="bar">
        <Button icon="menu" label="Menu" class="narrow-only" onClick={() => (menuOpen.value = true)} />
        <h1>Trade-off</h1>
        <Button icon="again" label="Load again" onClick={() => void refresh()} />
      </header>
      <div class="scroll">
        <div class="breadth">
          {group && (
            <p class="lead">
              What each way to make <b>{group.model || "the model"}</b> cheaper costs in quality.
            </p>
          )}
          {groups.length > 1 && (
            <label class="group-choice">
              Model and text
              <select value={place} onChange={(event) => setPlace(Number(event.currentTarget.value))}>
                {groups.map((one, i) => (
                  <option key={i} value={i}>
                    {one.model}, {one.text}
                  </option>
                ))}
              </select>
            </label>
          )}
          {group ? <Points key={place} group={group} all={rows.filter((row) => row.group === groups.indexOf(group))} /> : ledger.value && <HowToGetOne />}
        </div>
      </div>
    </main>
  );
}

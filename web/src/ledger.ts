// What a row of the ledger says, for the plot, the table and the facts beside a model.
import type { Row } from "./api";
import { number, rate } from "./parts";
import { ledger } from "./state";

export function bytes(value: number): string {
  const [unit, name] = value >= 1e9 ? [1e9, "GB"] : value >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
  return `${Number((value / unit).toPrecision(3))} ${name}`;
}

// ln(perplexity / base's) where some row has it, else ln-perplexity: lower is better.
export const qualityOf = (row: Row, paired: boolean) => (paired ? row.ln_ratio : row.ln_perplexity);
// Half an error bar: two standard errors.
export function qualityError(row: Row, paired: boolean): number {
  if (paired) return 2 * (row.ln_ratio_stderr ?? 0);
  return row.perplexity && row.perplexity_stderr ? (2 * row.perplexity_stderr) / row.perplexity : 0;
}

export function qualityText(row: Row, paired: boolean): string {
  if (!paired) return row.perplexity === undefined ? "" : number(row.perplexity, 2);
  if (row.ln_ratio === undefined) return "";
  const error = row.ln_ratio_stderr ? ` ± ${Number((200 * row.ln_ratio_stderr).toPrecision(2))} %` : "";
  return `×${number(Math.exp(row.ln_ratio), 3)}${error}`;
}

export interface Cost {
  id: "bytes" | "rate" | "memory";
  title: string;
  short: string;
  lowerIsBetter: boolean;
  of: (row: Row) => number | undefined;
  onFront: (row: Row) => boolean;
  text: (row: Row) => string;
}

const shownBytes = (value: number | undefined) => (value === undefined ? "" : bytes(value));

export const costs: Cost[] = [
  { id: "bytes", title: "size on disk", short: "Size", lowerIsBetter: true, of: (row) => row.bytes, onFront: (row) => row.front.size, text: (row) => shownBytes(row.bytes) },
  {
    id: "rate",
    title: "tokens a second, one reader",
    short: "Speed",
    lowerIsBetter: false,
    of: (row) => row.decode_tps,
    onFront: (row) => row.front.rate,
    text: (row) => (row.decode_tps === undefined ? "" : `${rate(row.decode_tps)} tok/s`),
  },
  {
    id: "memory",
    title: "peak memory",
    short: "Memory",
    lowerIsBetter: true,
    of: (row) => row.peak_rss_bytes,
    onFront: (row) => row.front.memory,
    text: (row) => shownBytes(row.peak_rss_bytes),
  },
];

// "76 MB · ×1.071 · 116 tok/s" of a served model, from the ledger.
export function factsOf(model: string): string {
  const row = ledger.value?.rows.find((one) => one.served_as === model && one.newest);
  if (!row) return "";
  const paired = ledger.value?.groups?.[row.group]?.paired ?? false;
  const quality = qualityText(row, paired);
  return [costs[0].text(row), quality && `perplexity ${quality}`, costs[1].text(row)].filter(Boolean).join(" · ");
}

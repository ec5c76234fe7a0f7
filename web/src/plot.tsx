// Quality against a cost, as SVG: error bars of two standard errors, the front as a line, points that are clicked or reached by keys.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Row } from "./api";
import { bytes, type Cost, qualityError, qualityOf } from "./ledger";
import { number } from "./parts";

interface Scale {
  (value: number): number;
  ticks: { at: number; text: string }[];
}

function scaled(map: (value: number) => number, low: number, high: number, from: number, to: number): (value: number) => number {
  const [a, b] = [map(low), map(high)];
  return (value) => from + ((map(value) - a) / (b - a || 1)) * (to - from);
}

// Round values between the ends, with as many ticks as have room.
function roundValues(low: number, high: number, log: boolean, most: number): number[] {
  if (log) {
    const decades = Array.from({ length: 16 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i));
    for (const digits of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
      const values = decades.flatMap((decade) => digits.map((digit) => digit * decade)).filter((value) => value >= low && value <= high);
      if (values.length <= most && values.length > 1) return values;
    }
  }
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((value) => value >= rough)!;
  return Array.from({ length: most + 2 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((value) => value <= high);
}

function costScale(values: number[], format: (value: number) => string, from: number, to: number): Scale {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const log = least > 0 && most / least > 2.5;
  const air = log ? (most / least) ** 0.08 : (most - least || most || 1) * 0.08;
  const [low, high] = log ? [least / air, most * air] : [Math.max(0, least - air), most + air];
  const place = scaled(log ? Math.log : (value) => value, low, high, from, to);
  const ticks = roundValues(low, high, log, Math.max(2, Math.floor((to - from) / 90))).map((value) => ({ at: place(value), text: format(value) }));
  return Object.assign(place, { ticks });
}

const ratios = [0.9, 0.95, 0.98, 1, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20];
export const mostShown = Math.log(20); // worse points stand at the upper edge

// Differences of ln-perplexity: linear within about 2 % of the base, logarithmic far from it.
function qualityScale(values: number[], paired: boolean, from: number, to: number): Scale {
  const map = paired ? (value: number) => Math.asinh(value / 0.02) : (value: number) => value;
  const shown = values.filter(Number.isFinite);
  const low = Math.min(...shown, ...(paired ? [0] : []));
  const high = Math.max(...shown, low + 0.01);
  const inner = scaled(map, low, high, from, to);
  const wanted = paired ? ratios.map(Math.log) : roundValues(Math.exp(low), Math.exp(high), true, 6).map(Math.log);
  const ticks: Scale["ticks"] = [];
  const put = (value: number) => {
    const at = inner(value);
    if (value < low - 0.03 || value > high || at > from + 12 || ticks.some((tick) => Math.abs(tick.at - at) < 24)) return;
    ticks.push({ at, text: paired ? `×${number(Math.exp(value), 2).replace(/\.?0+$/, "")}` : number(Math.exp(value), 1) });
  };
  if (paired) put(0);
  wanted.forEach(put);
  return Object.assign(inner, { ticks });
}

const marks: Record<string, string> = {
  base: "M0-8.5 2.2-2.9 8.1-2.6 3.5 1.1 5 6.9 0 3.6-5 6.9-3.5 1.1-8.1-2.6-2.2-2.9Z",
  quantize: "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0Z",
  prune: "M-5-5H5V5H-5Z",
  lowrank: "M0-6.5 6.2 4.6H-6.2Z",
  mixed: "M0-7 7 0 0 7-7 0Z",
  other: "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
};

export const Mark = ({ family, filled }: { family: string; filled: boolean }) => <path class={`mark ${family} ${filled ? "filled" : ""}`} d={marks[family] ?? marks.other} />;

interface Placed {
  row: Row;
  x: number;
  y: number;
  top: number;
  bottom: number;
  clipped: boolean;
  label?: { x: number; y: number; anchor: "start" | "end" | "middle" };
}

// A label where it covers neither a mark, nor an error bar, nor another label; else none.
function placeLabels(points: Placed[], width: number, height: number, first: (row: Row) => boolean) {
  const taken = points.map((point) => [point.x - 9, Math.min(point.top, point.y - 9), point.x + 9, Math.max(point.bottom, point.y + 9)]);
  for (const point of [...points].sort((a, b) => Number(first(b.row)) - Number(first(a.row)))) {
    const wide = 6.7 * nameOf(point.row).length + 2;
    const tries = [
      { x: point.x + 12, y: point.y + 4, anchor: "start" as const, left: point.x + 12 },
      { x: point.x - 12, y: point.y + 4, anchor: "end" as const, left: point.x - 12 - wide },
      { x: point.x, y: Math.min(point.top, point.y - 9) - 5, anchor: "middle" as const, left: point.x - wide / 2 },
      { x: point.x, y: Math.max(point.bottom, point.y + 9) + 13, anchor: "middle" as const, left: point.x - wide / 2 },
      { x: point.x + 11, y: point.y - 9, anchor: "start" as const, left: point.x + 11 },
      { x: point.x + 11, y: point.y + 17, anchor: "start" as const, left: point.x + 11 },
    ];
    for (const { left, ...label } of tries) {
      const box = [left, label.y - 11, left + wide, label.y + 3];
      if (box[0] < 4 || box[2] > width - 2 || box[1] < 0 || box[3] > height) continue;
      if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
      point.label = label;
      taken.push(box);
      break;
    }
  }
}

export const nameOf = (row: Row) => row.name || row.label;

interface PlotProps {
  rows: Row[];
  paired: boolean;
  cost: Cost;
  selected: Row | null;
  onSelect: (row: Row) => void;
}

export function Plot({ rows, paired, cost, selected, onSelect }: PlotProps) {
  const at = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(700);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setWidth(Math.max(280, at.current!.clientWidth)));
    watch.observe(at.current!);
    return () => watch.disconnect();
  }, []);
  const height = width < 520 ? 340 : 450;
  const area = { left: 52, right: width - 14, top: 18, bottom: height - 44 };

  const shown = rows.filter((row) => cost.of(row) !== undefined && qualityOf(row, paired) !== undefined);
  if (!shown.length) {
    return (
      <div class="plot" ref={at}>
        <p class="nothing">No point of the ledger has both values.</p>
      </div>
    );
  }
  const quality = (row: Row) => qualityOf(row, paired)!;
  const limit = paired ? mostShown : Infinity;
  const ends = shown.flatMap((row) => (quality(row) > limit ? [] : [quality(row) + qualityError(row, paired), quality(row) - qualityError(row, paired)]));
  const anyClipped = shown.some((row) => quality(row) > limit);
  const x = costScale(shown.map((row) => cost.of(row)!), cost.id === "bytes" || cost.id === "memory" ? bytes : (value) => number(value, value < 10 ? 1 : 0), area.left + 8, area.right - 8);
  const y = qualityScale(ends.length ? ends.map((end) => Math.min(end, limit)) : [limit], paired, area.bottom - 16, area.top + (anyClipped ? 44 : 12));
  const points: Placed[] = shown.map((row) => {
    const clipped = quality(row) > limit;
    const error = qualityError(row, paired);
    const place = clipped ? area.top + 18 : y(quality(row));
    const end = (value: number) => (clipped || !error ? place : y(Math.min(limit, value)));
    return { row, x: x(cost.of(row)!), y: place, top: end(quality(row) + error), bottom: end(quality(row) - error), clipped };
  });
  placeLabels(points, width, area.bottom, (row) => row === selected || cost.onFront(row));

  const front = points.filter((point) => cost.onFront(point.row) && !point.clipped).sort((a, b) => a.x - b.x);
  const steps = front.map((point, i) => {
    if (i === 0) return `M${point.x} ${point.y}`;
    return cost.lowerIsBetter ? `H${point.x}V${point.y}` : `V${point.y}H${point.x}`;
  });
  const order = [...points].sort((a, b) => a.x - b.x);
  const entry = points.find((point) => point.row === selected) ?? order[0];

  const move = (event: KeyboardEvent, place: number) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") onSelect(order[place].row);
    else if (by) {
      const next = (place + by + order.length) % order.length;
      onSelect(order[next].row);
      (event.currentTarget as SVGElement).ownerSVGElement!.querySelectorAll<SVGElement>(".point")[next].focus();
    } else return;
    event.preventDefault();
  };

  return (
    <div class="plot" ref={at}>
      <svg width={width} height={height} role="group" aria-label={`${paired ? "Perplexity against the base's" : "Perplexity"} against ${cost.title}`}>
        {x.ticks.map((tick) => (
          <g key={tick.text} class="tick">
            <line x1={tick.at} x2={tick.at} y1={area.top} y2={area.bottom} />
            <text x={tick.at} y={area.bottom + 16} text-anchor="middle">
              {tick.text}
            </text>
          </g>
        ))}
        {y.ticks.map((tick) => (
          <g key={tick.text} class={tick.text === "×1" ? "tick base" : "tick"}>
            <line x1={area.left} x2={area.right} y1={tick.at} y2={tick.at} />
            <text x={area.left - 8} y={tick.at + 4} text-anchor="end">
              {tick.text}
            </text>
          </g>
        ))}
        <text class="axis" x={area.right} y={height - 6} text-anchor="end">
          {cost.title}
          {cost.lowerIsBetter ? " — left is better" : " — right is better"}
        </text>
        <text class="axis" x={4} y={11}>
          {paired ? "perplexity against the base" : "perplexity"} — down is better
        </text>
        {front.length > 1 && <path class="front" d={steps.join("")} />}
        {order.map((point, place) => (
          <g
            key={place}
            class={point.row === selected ? "point selected" : "point"}
            role="button"
            tabindex={point === entry ? 0 : -1}
            aria-pressed={point.row === selected}
            aria-label={`${nameOf(point.row)}: ${cost.text(point.row)}, ${point.clipped ? "far off: " : ""}perplexity ${paired ? `×${number(Math.exp(quality(point.row)), 3)} of the base's` : number(Math.exp(quality(point.row)), 2)}${cost.onFront(point.row) ? ", on the front" : ""}`}
            onClick={() => onSelect(point.row)}
            onKeyDown={(event) => move(event, place)}
          >
            <title>{point.row.label}</title>
            <circle class="reach" cx={point.x} cy={point.y} r="14" />
            {point.top !== point.bottom && <path class="error" d={`M${point.x - 4} ${point.top}h8M${point.x} ${point.top}V${point.bottom}M${point.x - 4} ${point.bottom}h8`} />}
            {point.clipped && <path class="error" d={`M${point.x} ${point.y - 10}v-7m-3 3l3-3l3 3`} />}
            <g transform={`translate(${point.x} ${point.y})`}>
              <Mark family={point.row.family} filled={cost.onFront(point.row)} />
            </g>
            {point.label && (
              <text class="label" x={point.label.x} y={point.label.y} text-anchor={point.label.anchor}>
                {nameOf(point.row)}
              </text>
            )}
          </g>
        ))}
      </svg>
    </div>
  );
}

// What the page asks of the server.
import { signal } from "@preact/signals";

export class ServerError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

export interface Model {
  id: string;
  root?: string;
  max_model_len?: number;
  status?: string | { value?: string };
  meta?: { n_params?: number; size?: number; status?: string };
}

export interface Field {
  name: string;
  help: string;
  min?: number;
  max?: number;
  integer?: boolean;
}

export interface Props {
  fields: Field[];
  default_sampling: Record<string, Record<string, number>>;
}

export interface Row {
  name: string;
  label: string;
  model: string;
  family: string;
  chain: string[];
  runtime: string[];
  time: string;
  notes: string;
  group: number;
  machine: number;
  newest: boolean;
  front: { size: boolean; rate: boolean; memory: boolean };
  tasks: Record<string, number>;
  bytes?: number;
  bits_per_weight?: number;
  perplexity?: number;
  perplexity_stderr?: number;
  ln_perplexity?: number;
  ln_ratio?: number;
  ln_ratio_stderr?: number;
  kl_mean?: number;
  top1_agreement?: number;
  prefill_tps?: number;
  decode_tps?: number;
  peak_rss_bytes?: number;
  energy_joules?: number;
  seconds_to_make?: number;
  path: string | null;
  served_as: string | null;
}

export interface Group {
  model: string;
  text: string;
  paired: boolean;
  machines: string[];
  in_short: string[];
}

export interface Ledger {
  ledger?: string; // its path
  rows: Row[];
  groups?: Group[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
}

const stored = () => sessionStorage.getItem("key") ?? localStorage.getItem("key") ?? "";
export const apiKey = signal(stored());

// The key stays in this tab, or on this device where that is wished.
export function setKey(key: string, remember: boolean) {
  sessionStorage.removeItem("key");
  localStorage.removeItem("key");
  if (key) (remember ? localStorage : sessionStorage).setItem("key", key);
  apiKey.value = key;
}
export const keyIsRemembered = () => localStorage.getItem("key") !== null;

// Called when the server wants a key.
export const keyWanted = signal(false);

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (init.body) headers["Content-Type"] = "application/json";
  if (apiKey.value) headers["Authorization"] = `Bearer ${apiKey.value}`;
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ServerError(0, "The server cannot be reached.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  if (answer.status === 401) keyWanted.value = true;
  throw new ServerError(answer.status, messageIn(text) ?? `The server answered ${answer.status}.`);
}

function messageIn(text: string): string | null {
  try {
    const error = JSON.parse(text).error;
    const message = typeof error === "string" ? error : error?.message;
    return typeof message === "string" ? message : null;
  } catch {
    return null;
  }
}

const get = async <T>(path: string): Promise<T> => (await call(path)).json();
export const getModels = async () => (await get<{ data: Model[] }>("/v1/models")).data;
export const getProps = () => get<Props>("/props");
export const getLedger = () => get<Ledger>("/v1/ledger");

export function statusOf(model: Model): string {
  const status = typeof model.status === "string" ? model.status : model.status?.value;
  return status ?? model.meta?.status ?? "loaded";
}

export interface Progress {
  content: string;
  reasoning: string;
  tools: { name: string; arguments: string }[];
  pieces: number;
  firstAt: number; // performance.now() of the first piece; 0: none yet
  lastAt: number;
  usage?: Usage;
  rate?: number; // tokens a second, where the server says it
  promptRate?: number;
  finish?: string;
}

type Delta = {
  content?: string | null;
  reasoning_content?: string | null;
  reasoning?: string | null;
  tool_calls?: { index?: number; function?: { name?: string; arguments?: string } }[];
};

function take(progress: Progress, event: any) {
  if (event.error) throw new ServerError(Number(event.error.code) || 500, String(event.error.message ?? event.error));
  if (event.usage) progress.usage = event.usage;
  if (event.timings) {
    progress.rate = event.timings.predicted_per_second || undefined;
    progress.promptRate = event.timings.prompt_per_second || undefined;
  }
  const choice = event.choices?.[0];
  if (!choice || choice.index > 0) return; // one answer is shown, whatever the request's further fields ask for
  if (choice.finish_reason) progress.finish = choice.finish_reason;
  const delta: Delta = choice.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (!delta.content && !thought && !delta.tool_calls) return;
  progress.content += delta.content ?? "";
  progress.reasoning += thought ?? "";
  for (const call of delta.tool_calls ?? []) {
    const tool = (progress.tools[call.index ?? 0] ??= { name: "", arguments: "" });
    tool.name += call.function?.name ?? "";
    tool.arguments += call.function?.arguments ?? "";
  }
  progress.pieces += 1;
  progress.lastAt = performance.now();
  progress.firstAt ||= progress.lastAt;
}

// Streams an answer into `progress`, calling `changed` after each event. Throws ServerError, also when the stream ends before its end.
export async function streamChat(body: object, progress: Progress, changed: () => void, signal: AbortSignal) {
  const request = { ...body, stream: true, stream_options: { include_usage: true } };
  const answer = await call("/v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let complete = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const events = (rest + value).replace(/\r\n/g, "\n").split("\n\n");
      rest = events.pop()!;
      for (const event of events) {
        const data = event
          .split("\n")
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart())
          .join("\n");
        if (data === "[DONE]") complete = true;
        else if (data) take(progress, JSON.parse(data));
      }
      changed();
    }
  } catch (error) {
    if (signal.aborted || error instanceof ServerError) throw error;
    throw new ServerError(0, "The connection broke before the answer ended.");
  }
  if (!complete) throw new ServerError(0, "The answer ended before its end was sent.");
}

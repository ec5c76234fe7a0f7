// A conversation is a tree of turns: an edit or another answer is a new branch, and the old one stays.
import type { Usage } from "./api";

export interface Stats {
  usage?: Usage;
  rate?: number; // tokens a second while the answer was written
  first?: number; // seconds until its first piece
}

export type TurnState = "streaming" | "done" | "length" | "stopped" | "broken" | "left"; // left: its page was, before the answer ended

export interface Turn {
  id: string;
  parent: string; // "" for a first turn
  role: "user" | "assistant";
  content: string;
  reasoning?: string;
  tools?: string; // calls of tools, as JSON
  model?: string;
  state: TurnState;
  error?: string;
  stats?: Stats;
  created: number;
}

export interface Conversation {
  id: string;
  title: string;
  created: number;
  updated: number;
  model: string;
  system: string;
  turns: Record<string, Turn>;
  chosen: Record<string, string>; // of the turns after one (or after "" ), the one that is shown
  pane?: "a" | "b"; // of the comparison; such a conversation is in no list
}

export type Head = Omit<Conversation, "turns">;

export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export function newConversation(model: string, pane?: "a" | "b"): Conversation {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, model, system: "", turns: {}, chosen: {}, ...(pane && { pane }) };
}

export function childrenOf(conversation: Conversation, parent: string): Turn[] {
  return Object.values(conversation.turns)
    .filter((turn) => turn.parent === parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

// The turns that are shown, first to last; with `upTo`, those before it and itself, whatever is shown.
export function shownTurns(conversation: Conversation, upTo?: string): Turn[] {
  const turns: Turn[] = [];
  if (upTo !== undefined) {
    for (let id = upTo; id; id = conversation.turns[id].parent) turns.unshift(conversation.turns[id]);
    return turns;
  }
  const byParent = new Map<string, Turn[]>();
  for (const turn of Object.values(conversation.turns)) byParent.set(turn.parent, [...(byParent.get(turn.parent) ?? []), turn]);
  for (let parent = ""; byParent.has(parent); parent = turns[turns.length - 1].id) {
    const siblings = childrenOf(conversation, parent);
    turns.push(siblings.find((turn) => turn.id === conversation.chosen[parent]) ?? siblings[siblings.length - 1]);
  }
  return turns;
}

export function withTurn(conversation: Conversation, turn: Turn): Conversation {
  return {
    ...conversation,
    updated: Date.now(),
    title: conversation.title || titleOf(turn),
    turns: { ...conversation.turns, [turn.id]: turn },
    chosen: { ...conversation.chosen, [turn.parent]: turn.id },
  };
}

// Of two states of one turn the later one: it has ended, or more of it is there.
export const weight = ({ state, content, reasoning, tools }: Turn) =>
  state === "streaming" || state === "left" ? content.length + (reasoning?.length ?? 0) + (tools?.length ?? 0) : Infinity;

// Turns that were left without their conversation: each without its parent is a first one.
export function recovered(id: string, turns: Record<string, Turn>): Conversation {
  const all = Object.values(turns).sort((a, b) => a.created - b.created);
  const empty = { ...newConversation(all[0].model ?? ""), id, created: all[0].created };
  const rooted = all.map((turn) => (turns[turn.parent] ? turn : { ...turn, parent: "" }));
  return { ...rooted.reduce(withTurn, empty), updated: all.at(-1)!.created };
}

const titleOf = (turn: Turn) => (turn.role === "user" ? turn.content.trim().replace(/\s+/g, " ").slice(0, 80) : "");

export function matches(conversation: Conversation, wanted: string): boolean {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [conversation.title, conversation.system, ...Object.values(conversation.turns).map((turn) => turn.content)].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

// What is written to a file.
export const exported = (conversations: Conversation[]) =>
  JSON.stringify({ format: "frugal-conversations", version: 1, conversations: conversations.map(({ pane: _, ...kept }) => kept) }, null, 1);

export const isId = (text: string) => /^[a-z0-9-]{1,64}$/i.test(text);

const states = ["done", "length", "stopped", "broken", "left"];

// The conversations of such a file; throws an Error that names the place at fault. Conversations' ids that are taken or none are replaced by the caller.
export function imported(text: string): Conversation[] {
  let file: any;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (file?.format !== "frugal-conversations" || file.version !== 1 || !Array.isArray(file.conversations)) {
    throw new Error('The file has no "format": "frugal-conversations" of version 1.');
  }
  return file.conversations.map((value: any, index: number) => conversationIn(value, `conversations[${index}]`));
}

function conversationIn(value: any, at: string): Conversation {
  const text = (name: string, from: any = value, where = at) => {
    if (typeof from?.[name] !== "string") throw new Error(`${where}.${name} must be a text.`);
    return from[name] as string;
  };
  const time = (from: any, where: string) => {
    if (!Number.isFinite(from?.created)) throw new Error(`${where}.created must be a number.`);
    return from.created as number;
  };
  if (!value?.turns || typeof value.turns !== "object") throw new Error(`${at}.turns must be an object.`);
  const turns: Record<string, Turn> = {};
  for (const [id, turn] of Object.entries<any>(value.turns)) {
    const where = `${at}.turns.${id}`;
    if (!isId(id)) throw new Error(`${where}: an id is letters, digits and -, at most 64.`);
    if (turn?.role !== "user" && turn?.role !== "assistant") throw new Error(`${where}.role must be user or assistant.`);
    const state = turn.state === "streaming" ? "left" : states.includes(turn.state) ? turn.state : "done";
    const kept: Turn = { id, parent: text("parent", turn, where), role: turn.role, content: text("content", turn, where), state, created: time(turn, where) };
    for (const name of ["reasoning", "tools", "model", "error"] as const) {
      if (turn[name] !== undefined) kept[name] = text(name, turn, where);
    }
    const stats = statsIn(turn.stats);
    if (stats) kept.stats = stats;
    turns[id] = kept;
  }
  for (const id of Object.keys(turns)) {
    let steps = 0;
    for (let at_ = id; at_; at_ = turns[at_].parent) {
      if (!Object.hasOwn(turns, at_) || ++steps > 100_000) throw new Error(`${at}.turns.${id} hangs on no first turn.`);
      if (steps > Object.keys(turns).length) throw new Error(`${at}.turns.${id} comes before itself.`);
    }
  }
  const chosen: Record<string, string> = {};
  for (const [parent, id] of Object.entries<any>(value.chosen ?? {})) {
    if (typeof id === "string" && turns[id]?.parent === parent) chosen[parent] = id;
  }
  const created = time(value, at);
  const updated = Number.isFinite(value.updated) ? value.updated : created;
  return { id: text("id"), title: text("title"), created, updated, model: text("model"), system: text("system"), turns, chosen };
}

function statsIn(value: any): Stats | undefined {
  if (!value || typeof value !== "object") return undefined;
  const number = (from: any) => (Number.isFinite(from) ? (from as number) : undefined);
  const { prompt_tokens, completion_tokens, total_tokens } = value.usage ?? {};
  const usage = [prompt_tokens, completion_tokens, total_tokens].every(Number.isFinite) ? { prompt_tokens, completion_tokens, total_tokens } : undefined;
  return { usage, rate: number(value.rate), first: number(value.first) };
}

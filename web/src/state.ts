// What the page knows, and everything that changes it.
import { computed, effect, signal } from "@preact/signals";
import { type Field, getLedger, getModels, getProps, keyWanted, type Ledger, type Model, type Progress, type Props, ServerError, statusOf, streamChat } from "./api";
import { childrenOf, type Conversation, imported, isId, newConversation, newId, shownTurns, type Turn, withTurn } from "./conversation";
import * as storage from "./storage";

// ---- Views. The address says which: #/, #/c/ID, #/tradeoff, #/compare.
export type View = "chat" | "tradeoff" | "compare";
export const view = signal<View>("chat");
export const currentId = signal("");
export const menuOpen = signal(false); // the side bar on a phone
export const parametersOpen = signal(false);
export const dialog = signal<"" | "shortcuts" | "key">("");

function readAddress() {
  const [, place, id] = location.hash.split("/");
  view.value = place === "tradeoff" || place === "compare" ? place : "chat";
  currentId.value = place === "c" && id ? id : view.value === "chat" ? "" : currentId.value;
  menuOpen.value = false;
}
addEventListener("hashchange", readAddress);
export const go = (to: string) => void (location.hash = to);

// ---- What is kept beside the conversations.
function kept<T>(name: string, fallback: T) {
  let first = fallback;
  try {
    first = JSON.parse(localStorage.getItem(name) ?? "null") ?? fallback;
  } catch {
    // what is no JSON was not written here
  }
  const value = signal<T>(first);
  effect(() => localStorage.setItem(name, JSON.stringify(value.value)));
  return value;
}
export type Theme = "system" | "light" | "dark";
export const theme = kept<Theme>("theme", "system");
export const parameters = kept<Record<string, number>>("parameters", {});
export const stopTexts = kept("stop", "");
export const extraJson = kept("extra", "");
export const lastModel = kept("model", "");
const panes = kept<{ a: string; b: string }>("panes", { a: "", b: "" });

const systemIs = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(systemIs.matches);
systemIs.addEventListener("change", () => (systemIsDark.value = systemIs.matches));
export const isDark = computed(() => theme.value === "dark" || (theme.value === "system" && systemIsDark.value));
effect(() => void (document.documentElement.dataset.theme = isDark.value ? "dark" : "light"));
export const toggleTheme = () => (theme.value = isDark.value ? "light" : "dark");

// ---- Short messages at the lower edge.
export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
}
export const toasts = signal<Toast[]>([]);
let toastCount = 0;
export function say(text: string, action?: Toast["action"]) {
  const id = ++toastCount;
  toasts.value = [...toasts.value.slice(-2), { id, text, action }];
  setTimeout(() => dismiss(id), action ? 10_000 : 5_000);
}
export const dismiss = (id: number) => (toasts.value = toasts.value.filter((toast) => toast.id !== id));
export const spoken = signal(""); // for screen readers

// ---- The server.
export const models = signal<Model[]>([]);
export const props = signal<Props | null>(null);
export const ledger = signal<Ledger | null>(null);
export const serverProblem = signal("");

const text = (error: unknown) => (error instanceof Error ? error.message : String(error));

export async function refresh() {
  try {
    [models.value, props.value, ledger.value] = await Promise.all([getModels(), getProps(), getLedger()]);
    serverProblem.value = "";
  } catch (error) {
    serverProblem.value = text(error);
  }
}
effect(() => {
  if (keyWanted.value) dialog.value = "key";
});

export const hasModel = (name: string) => models.value.some((model) => model.id === name);
// The model that a conversation would use now.
export const modelOf = (conversation?: Conversation | null): string => {
  for (const name of [conversation?.model, lastModel.value]) {
    if (name && hasModel(name)) return name;
  }
  return models.value[0]?.id ?? conversation?.model ?? "";
};
export const contextOf = (name: string) => models.value.find((model) => model.id === name)?.max_model_len;

// Fields that are asked for one by one: what the sampler takes, and a few that shape the answer.
const plainFields = ["max_tokens", "min_tokens", "seed"];
export const parameterFields = computed<Field[]>(() => {
  const known = Object.values(props.value?.default_sampling ?? {})[0] ?? {};
  return (props.value?.fields ?? []).filter((field) => field.name in known || plainFields.includes(field.name));
});
export const defaultOf = (model: string, field: string) => props.value?.default_sampling[model]?.[field];

// What the request says beside model and messages; throws an Error for extra fields that are no JSON object.
export function requestFields(): object {
  const stop = stopTexts.value.split("\n").filter(Boolean);
  let extra: unknown = {};
  if (extraJson.value.trim()) {
    try {
      extra = JSON.parse(extraJson.value);
    } catch {
      extra = null;
    }
    if (!extra || typeof extra !== "object" || Array.isArray(extra)) throw new Error("The extra fields (in the parameters) are not a JSON object.");
  }
  return { ...(extra as object), ...parameters.value, ...(stop.length && { stop }) };
}

// ---- Conversations.
export const conversations = signal<Conversation[]>([]);
export const loaded = signal(false); // what the browser kept
export const listed = computed(() => conversations.value.filter((one) => !one.pane).sort((a, b) => b.updated - a.updated));
export const conversationOf = (id: string) => conversations.value.find((one) => one.id === id);
export const current = computed(() => conversationOf(currentId.value) ?? null);
export const systemDraft = signal(""); // of the conversation that begins with the next message

const unsaved = new Set<string>();
let saveTimer = 0;
let storageFails = false;

async function saveNow() {
  clearTimeout(saveTimer);
  saveTimer = 0;
  const changes = new Map([...unsaved].map((id) => [id, conversationOf(id)]));
  unsaved.clear();
  try {
    if (changes.size) await storage.write(changes);
  } catch (error) {
    if (!storageFails) say(`This browser keeps no conversations: ${text(error)}`);
    storageFails = true;
  }
}
addEventListener("pagehide", () => void saveNow());

function changed(id: string) {
  unsaved.add(id);
  saveTimer ||= window.setTimeout(saveNow, running.size ? 500 : 0);
}

export function put(conversation: Conversation) {
  const others = conversations.value.filter((one) => one.id !== conversation.id);
  conversations.value = [...others, conversation];
  changed(conversation.id);
}

export function change(id: string, how: (conversation: Conversation) => Conversation) {
  const conversation = conversationOf(id);
  if (conversation) put(how(conversation));
}

export function removeConversation(id: string) {
  const conversation = conversationOf(id);
  if (!conversation) return;
  stop(id);
  conversations.value = conversations.value.filter((one) => one.id !== id);
  changed(id);
  if (currentId.value === id) go("#/");
  say(`Deleted “${conversation.title || "conversation"}”.`, {
    label: "Undo",
    run: () => {
      put({ ...conversation, turns: ended(conversation.turns) });
      go(`#/c/${id}`);
    },
  });
}

export function importText(content: string): number {
  const found = imported(content);
  for (const conversation of found) put(conversationOf(conversation.id) || !isId(conversation.id) ? { ...conversation, id: newId() } : conversation);
  return found.length;
}

// Answers that another page or the last visit did not see to their end.
const ended = (turns: Record<string, Turn>) =>
  Object.fromEntries(
    Object.entries(turns).map(([id, turn]) => [
      id,
      turn.state === "streaming" ? { ...turn, state: "broken" as const, error: "The page was left before the answer ended." } : turn,
    ]),
  );

export async function begin() {
  readAddress();
  void refresh();
  try {
    const all = await storage.loadAll();
    const { a, b } = panes.value;
    for (const one of all.filter((one) => one.pane && one.id !== a && one.id !== b)) changed(one.id); // columns that were left behind
    const mine = all.filter((one) => !unsaved.has(one.id)).map((one) => ({ ...one, turns: ended(one.turns) }));
    conversations.value = [...mine, ...conversations.value];
  } catch (error) {
    storageFails = true;
    say(`This browser keeps no conversations: ${text(error)}`);
  }
  loaded.value = true;
}
effect(() => void (document.title = view.value === "chat" && current.value?.title ? `${current.value.title} · frugal` : "frugal"));

// ---- Answers. One conversation has at most one on its way.
const running = new Map<string, AbortController>();
export const busy = signal<ReadonlySet<string>>(new Set());
const noteBusy = () => (busy.value = new Set(running.keys()));
export const stop = (id: string) => running.get(id)?.abort();
export const stopShown = () => {
  const ids = view.value === "compare" ? [panes.value.a, panes.value.b] : [currentId.value];
  const any = ids.some((id) => running.has(id));
  ids.forEach(stop);
  return any;
};

async function answer(id: string, parent: string) {
  stop(id);
  const conversation = conversationOf(id)!;
  const model = modelOf(conversation);
  let turn: Turn = { id: newId(), parent, role: "assistant", content: "", model, state: "streaming", created: Date.now() };
  const controller = new AbortController();
  const progress: Progress = { content: "", reasoning: "", tools: [], pieces: 0, firstAt: 0, lastAt: 0 };
  const began = performance.now();
  let timer = 0;
  const show = (more: Partial<Turn> = {}) => {
    clearTimeout(timer);
    timer = 0;
    const seconds = (progress.lastAt - progress.firstAt) / 1000;
    const count = progress.usage?.completion_tokens ?? progress.pieces;
    const measured = count > 1 && seconds > 0 ? (count - 1) / seconds : undefined;
    turn = {
      ...turn,
      content: progress.content,
      ...(progress.reasoning && { reasoning: progress.reasoning }),
      ...(progress.tools.length && { tools: JSON.stringify(progress.tools.map(withParsedArguments), null, 2) }),
      stats: { usage: progress.usage, rate: progress.rate ?? measured, first: progress.firstAt ? (progress.firstAt - began) / 1000 : undefined },
      ...more,
    };
    change(id, (one) => ({ ...one, updated: Date.now(), turns: { ...one.turns, [turn.id]: turn } }));
  };
  running.set(id, controller);
  spoken.value = "";
  noteBusy();
  change(id, (one) => withTurn({ ...one, model }, turn));
  try {
    const messages = shownTurns(conversation, parent).map(({ role, content }) => ({ role, content }));
    if (conversation.system.trim()) messages.unshift({ role: "system" as never, content: conversation.system });
    // A long text is drawn less often, since it is drawn whole.
    const later = () => (timer ||= window.setTimeout(show, Math.min(300, 16 + progress.content.length / 100)));
    await streamChat({ ...requestFields(), model, messages }, progress, later, controller.signal);
    show({ state: progress.finish === "length" ? "length" : "done" });
    spoken.value = "The answer is complete.";
    if (models.value.some((one) => one.id === model && statusOf(one) !== "loaded")) void refresh();
  } catch (error) {
    if (controller.signal.aborted) show({ state: "stopped" });
    else {
      show({ state: "broken", error: text(error) });
      if (error instanceof ServerError && (error.status === 0 || error.status === 404)) void refresh();
    }
    spoken.value = controller.signal.aborted ? "Stopped." : text(error);
  } finally {
    if (running.get(id) === controller) running.delete(id);
    noteBusy();
  }
}

function withParsedArguments(tool: { name: string; arguments: string }) {
  try {
    return { name: tool.name, arguments: JSON.parse(tool.arguments) };
  } catch {
    return tool;
  }
}

// Sends a message after the last shown turn.
export function send(id: string, content: string) {
  const last = shownTurns(conversationOf(id)!).at(-1);
  ask(id, last?.id ?? "", content);
}

function ask(id: string, parent: string, content: string) {
  const turn: Turn = { id: newId(), parent, role: "user", content, state: "done", created: Date.now() };
  change(id, (one) => withTurn(one, turn));
  void answer(id, turn.id);
}

export function sendInChat(content: string) {
  let conversation = current.value;
  if (!conversation) {
    conversation = { ...newConversation(modelOf(null)), system: systemDraft.value };
    systemDraft.value = "";
    put(conversation);
    currentId.value = conversation.id;
    go(`#/c/${conversation.id}`);
  }
  send(conversation.id, content);
}

export function regenerate(id: string, turn: Turn) {
  void answer(id, turn.parent);
}

export function edit(id: string, turn: Turn, content: string) {
  ask(id, turn.parent, content);
}

export function showBranch(id: string, turn: Turn, by: number) {
  change(id, (one) => {
    const siblings = childrenOf(one, turn.parent);
    const next = siblings[siblings.findIndex((other) => other.id === turn.id) + by];
    return next ? { ...one, chosen: { ...one.chosen, [turn.parent]: next.id } } : one;
  });
}

export function chooseModel(conversation: Conversation | null, name: string) {
  lastModel.value = name;
  if (conversation) change(conversation.id, (one) => ({ ...one, model: name }));
}

export function chatWith(model: string) {
  lastModel.value = model;
  go("#/");
}

// ---- The comparison: two conversations that one input feeds.
export type Pane = "a" | "b";
export function paneOf(pane: Pane): Conversation | null {
  return conversationOf(panes.value[pane]) ?? null;
}

export function resetPane(pane: Pane, model: string) {
  const old = paneOf(pane);
  if (old) {
    stop(old.id);
    conversations.value = conversations.value.filter((one) => one.id !== old.id);
    changed(old.id);
  }
  const fresh = newConversation(model, pane);
  put(fresh);
  panes.value = { ...panes.value, [pane]: fresh.id };
}

// Both panes exist, the second one with another model than the first where there are two.
export function preparePanes() {
  if (!models.value.length || !loaded.value) return;
  const first = models.value[0].id;
  if (!paneOf("a")) resetPane("a", modelOf(null));
  if (!paneOf("b")) resetPane("b", models.value.find((model) => model.id !== modelOf(paneOf("a")))?.id ?? first);
}

export function setPaneModel(pane: Pane, model: string) {
  preparePanes();
  const conversation = paneOf(pane);
  if (conversation) change(conversation.id, (one) => ({ ...one, model }));
}

export function setSystem(system: string) {
  const shown = view.value === "compare" ? [paneOf("a"), paneOf("b")] : [current.value];
  for (const conversation of shown) {
    if (conversation) change(conversation.id, (one) => ({ ...one, system }));
    else if (view.value === "chat") systemDraft.value = system;
  }
}

export function keepPane(pane: Pane) {
  const conversation = paneOf(pane);
  if (!conversation) return;
  const { pane: _, ...rest } = conversation;
  put(rest);
  panes.value = { ...panes.value, [pane]: "" };
  resetPane(pane, conversation.model);
  go(`#/c/${rest.id}`);
}

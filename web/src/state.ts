// What the page knows, and everything that changes it.
import { computed, effect, signal } from "@preact/signals";
import { type Field, getLedger, getModels, getProps, keyWanted, type Ledger, type Model, type Progress, type Props, ServerError, statusOf, streamChat } from "./api";
import { childrenOf, type Conversation, imported, isId, newConversation, newId, shownTurns, type Turn, withTurn } from "./conversation";
import { begin as keep, beginWriting, busy, change, conversationOf, endWriting, loaded, put, remove, stop } from "./library";
import { say, spoken } from "./toasts";

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

// ---- What is kept beside the conversations. What is in step changes in all tabs.
function kept<T>(name: string, fallback: T, where = localStorage, inStep = true) {
  const read = (text: string | null): T => {
    try {
      return JSON.parse(text ?? "null") ?? fallback;
    } catch {
      return fallback; // what is no JSON was not written here
    }
  };
  const value = signal<T>(read(where.getItem(name)));
  effect(() => where.setItem(name, JSON.stringify(value.value)));
  addEventListener("storage", (event) => {
    if (inStep && event.storageArea === where && event.key === name) value.value = read(event.newValue);
  });
  return value;
}
export type Theme = "system" | "light" | "dark";
export const theme = kept<Theme>("theme", "system");
export const parameters = kept<Record<string, number>>("parameters", {});
export const stopTexts = kept("stop", "");
export const extraJson = kept("extra", "");
export const lastModel = kept("model", "");
export const drafts = kept<Record<string, string>>("drafts", {}, sessionStorage); // by conversation
const panes = kept<{ a: string; b: string }>("panes", { a: "", b: "" }, localStorage, false);

const systemIs = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(systemIs.matches);
systemIs.addEventListener("change", () => (systemIsDark.value = systemIs.matches));
export const isDark = computed(() => theme.value === "dark" || (theme.value === "system" && systemIsDark.value));
effect(() => void (document.documentElement.dataset.theme = isDark.value ? "dark" : "light"));
export const toggleTheme = () => (theme.value = isDark.value ? "light" : "dark");

// ---- The server.
export const models = signal<Model[]>([]);
export const props = signal<Props | null>(null);
export const ledger = signal<Ledger | null>(null);
export const serverProblem = signal("");

const text = (error: unknown) => (error instanceof Error ? error.message : String(error));

let retry = 0;
export async function refresh() {
  clearTimeout(retry);
  try {
    [models.value, props.value, ledger.value] = await Promise.all([getModels(), getProps(), getLedger()]);
    serverProblem.value = "";
  } catch (error) {
    serverProblem.value = text(error);
    if (error instanceof ServerError && (error.status === 0 || error.status >= 500)) retry = window.setTimeout(refresh, 3000); // until it is back
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
export const isLoaded = (name: string) => models.value.every((model) => model.id !== name || statusOf(model) === "loaded");
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
export const current = computed(() => conversationOf(currentId.value) ?? null);
export const systemDraft = signal(""); // of the conversation that begins with the next message

const stopped = (turns: Record<string, Turn>) =>
  Object.fromEntries(Object.entries(turns).map(([id, turn]) => [id, turn.state === "streaming" ? { ...turn, state: "stopped" as const } : turn]));

function showDeleted(conversation: Conversation, where: string) {
  const { id, title, pane } = conversation;
  if (currentId.value === id) go("#/");
  if (pane) return;
  say(`Deleted “${title || "conversation"}”${where}.`, {
    label: "Undo",
    run: () => {
      put({ ...conversation, turns: stopped(conversation.turns) });
      go(`#/c/${id}`);
    },
  });
}

export function removeConversation(id: string) {
  stop(id);
  const conversation = conversationOf(id);
  if (!conversation) return;
  remove(conversation);
  showDeleted(conversation, "");
}

export function importText(content: string): number {
  const found = imported(content);
  for (const conversation of found) put(conversationOf(conversation.id) || !isId(conversation.id) ? { ...conversation, id: newId() } : conversation);
  return found.length;
}

export function begin() {
  readAddress();
  void refresh();
  keep([panes.value.a, panes.value.b], (conversation) => showDeleted(conversation, " in another tab"));
}
const titles = { chat: () => current.value?.title, tradeoff: () => "Trade-off", compare: () => "Side by side" };
effect(() => void (document.title = [titles[view.value](), "frugal"].filter(Boolean).join(" · ")));

// ---- Answers. One conversation has at most one on its way.
export const stopShown = () => {
  const ids = view.value === "compare" ? [panes.value.a, panes.value.b] : [currentId.value];
  const any = ids.some((id) => busy.value.has(id));
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
    change(id, (one) => ({ ...one, turns: { ...one.turns, [turn.id]: turn } }));
  };
  beginWriting(turn.id, id, () => controller.abort());
  spoken.value = "";
  change(id, (one) => withTurn({ ...one, model }, turn));
  try {
    const messages = shownTurns(conversation, parent).map(({ role, content }) => ({ role, content }));
    if (conversation.system.trim()) messages.unshift({ role: "system" as never, content: conversation.system });
    // A long text is drawn less often, since it is drawn whole.
    const later = () => (timer ||= window.setTimeout(show, Math.min(300, 16 + progress.content.length / 100)));
    await streamChat({ ...requestFields(), model, messages }, progress, later, controller.signal);
    show({ state: progress.finish === "length" ? "length" : "done" });
    spoken.value = "The answer is complete.";
    if (serverProblem.value || !isLoaded(model)) void refresh();
  } catch (error) {
    if (controller.signal.aborted) show({ state: "stopped" });
    else {
      show({ state: "broken", error: text(error) });
      if (error instanceof ServerError && (error.status === 0 || error.status === 404)) void refresh();
    }
    spoken.value = controller.signal.aborted ? "Stopped." : text(error);
  } finally {
    endWriting(turn.id);
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
    remove(old);
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

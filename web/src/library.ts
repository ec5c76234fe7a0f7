// The conversations: in memory, in this browser's storage, and in step with the other tabs of this page. A turn is written by the tab that asked for it and by
// no other. Tabs that write in one conversation at once add branches to it; what one removes stays where another has written on.
import { computed, signal } from "@preact/signals";
import { type Conversation, type Head, type Turn, weight } from "./conversation";
import { type Changes, loadAll, type StoredTurn, write } from "./storage";
import { say } from "./toasts";

export const conversations = signal<Conversation[]>([]);
export const loaded = signal(false); // what the browser kept
// For the side bar, which looks at their heads: the same list while an answer grows.
let list: Conversation[] = [];
export const listed = computed(() => {
  const now = conversations.value.filter((one) => !one.pane).sort((a, b) => b.updated - a.updated);
  const isSame = now.length === list.length && now.every(({ id, title, updated }, i) => id === list[i].id && title === list[i].title && updated === list[i].updated);
  return isSame ? list : (list = now);
});
export const conversationOf = (id: string) => conversations.value.find((one) => one.id === id);

function hold(conversation: Conversation) {
  conversations.value = [...conversations.value.filter((one) => one.id !== conversation.id), conversation];
}

export function put(conversation: Conversation) {
  removed.delete(conversation.id);
  hold(conversation);
  changed(conversation.id);
}

export function change(id: string, how: (conversation: Conversation) => Conversation) {
  const conversation = conversationOf(id);
  if (conversation) put(how(conversation));
}

const letGo = (id: string) => (conversations.value = conversations.value.filter((one) => one.id !== id));

export function remove(conversation: Conversation) {
  letGo(conversation.id);
  removed.set(conversation.id, conversation);
  changed(conversation.id);
}

// ---- Answers on their way, by turn: those that this tab writes, and those of other tabs, with the time of their last sign of life.
const writing = new Map<string, { conversation: string; stop: () => void }>();
const elsewhere = new Map<string, { conversation: string; heard: number }>();
export const busy = signal<ReadonlySet<string>>(new Set());
const noteBusy = () => (busy.value = new Set([...writing.values(), ...elsewhere.values()].map((one) => one.conversation)));

export function beginWriting(turn: string, conversation: string, stop: () => void) {
  writing.set(turn, { conversation, stop });
  noteBusy();
}
export function endWriting(turn: string) {
  writing.delete(turn);
  noteBusy();
  void save();
}
function stopOwn(conversation: string) {
  for (const one of writing.values()) if (one.conversation === conversation) one.stop();
}
export function stop(conversation: string) {
  stopOwn(conversation);
  if ([...elsewhere.values()].some((one) => one.conversation === conversation)) tell({ stop: conversation });
}

// ---- Storage. What has changed is what is another object than the one that was saved.
const saved = new Map<string, Conversation>();
const removed = new Map<string, Conversation>();
const unsaved = new Set<string>();
let saveTimer = 0;
let storageFails = false;

function changed(id: string) {
  unsaved.add(id);
  saveTimer ||= window.setTimeout(save, writing.size ? 500 : 0);
}

function failed(error: unknown) {
  if (!storageFails) say(`This browser keeps no conversations: ${error instanceof Error ? error.message : error}`);
  storageFails = true;
}

async function save() {
  clearTimeout(saveTimer);
  saveTimer = 0;
  const news: News = { heads: [], turns: [], removed: [] };
  const ids = [...unsaved];
  if (!ids.length) return;
  unsaved.clear();
  for (const id of ids) {
    const [now, before] = [conversationOf(id), saved.get(id)];
    if (now) {
      const { turns, ...head } = now;
      if (!before || Object.keys(head).some((key) => head[key as keyof Head] !== before[key as keyof Head]) || before.pane !== head.pane) news.heads.push(head);
      for (const turn of Object.values(turns)) if (before?.turns[turn.id] !== turn) news.turns.push({ conversation: id, ...turn });
      saved.set(id, now);
    } else {
      news.removed.push({ id, turns: Object.keys(removed.get(id)?.turns ?? {}) });
      saved.delete(id);
    }
  }
  tell({ news });
  try {
    await write(news);
    storageFails = false;
  } catch (error) {
    failed(error);
    for (const id of ids) saved.delete(id); // the next change writes all of it
  }
}
addEventListener("pagehide", () => void save());

// ---- Other tabs.
interface News extends Changes {
  removed: { id: string; turns: string[] }[]; // the turns that were known to who removed it
}
interface Message {
  news?: News;
  stop?: string; // the answer in this conversation
  asks?: true; // which answers are on their way
  alive?: string[]; // these
}
const channel = new BroadcastChannel("frugal");
const tell = (message: Message) => channel.postMessage(message);
let isGone: (conversation: Conversation) => void = () => {};

channel.onmessage = async ({ data }: MessageEvent<Message>) => {
  if (data.asks) tell({ alive: [...writing.keys()] });
  if (data.stop) stopOwn(data.stop);
  for (const turn of data.alive ?? []) {
    const one = elsewhere.get(turn);
    if (one) one.heard = performance.now();
  }
  if (!data.news) return;
  await start; // what is known here comes first
  data.news.removed.forEach(removedElsewhere);
  data.news.heads.forEach(takeHead);
  data.news.turns.forEach(takeTurn);
  noteBusy();
};

function removedElsewhere({ id, turns }: News["removed"][number]) {
  const mine = conversationOf(id);
  if (!mine) return;
  saved.delete(id);
  if (Object.keys(mine.turns).some((turn) => !turns.includes(turn) || writing.has(turn))) return changed(id);
  letGo(id);
  unsaved.delete(id);
  isGone(mine);
}

// What was removed here and another tab goes on with, or takes back.
function revive(id: string) {
  const back = removed.get(id);
  if (!back) return;
  say(`“${back.title || "conversation"}” is back: another tab goes on with it.`);
  put(back);
}

// Of the versions of a turn, each tab goes on showing its own.
function takeHead(head: Head) {
  revive(head.id);
  const [mine, before] = [conversationOf(head.id), saved.get(head.id)];
  const updated = Math.max(head.updated, mine?.updated ?? 0);
  const now = { ...head, updated, chosen: { ...head.chosen, ...mine?.chosen }, turns: mine?.turns ?? {} };
  saved.set(head.id, { ...now, turns: before?.turns ?? {} });
  hold(now);
}

function takeTurn({ conversation: id, ...turn }: StoredTurn) {
  if (!removed.get(id)?.turns[turn.id]) revive(id);
  const [mine, before] = [conversationOf(id), saved.get(id)];
  if (!mine) return;
  const own = mine.turns[turn.id];
  const isOlder = own && weight(own) > weight(turn);
  saved.set(id, { ...(before ?? mine), turns: { ...before?.turns, [turn.id]: turn } });
  if (isOlder) return changed(id); // it was written over
  hold({ ...mine, turns: { ...mine.turns, [turn.id]: turn } });
  if (turn.state === "streaming") elsewhere.set(turn.id, { conversation: id, heard: performance.now() });
  else elsewhere.delete(turn.id);
}

// An answer of which no tab says that it writes it was left. That is shown, not written: should its tab live, it will say more.
let asked = -Infinity;
function watch() {
  if (performance.now() - asked < 250) return;
  for (const [id, { conversation, heard }] of elsewhere) {
    if (heard >= asked) continue;
    elsewhere.delete(id);
    const [mine, before] = [conversationOf(conversation), saved.get(conversation)];
    if (!mine || !before) continue;
    const left: Turn = { ...mine.turns[id], state: "left" };
    hold({ ...mine, turns: { ...mine.turns, [id]: left } });
    saved.set(conversation, { ...before, turns: { ...before.turns, [id]: left } });
  }
  noteBusy();
  if (!elsewhere.size) return;
  asked = performance.now();
  tell({ asks: true });
}
setInterval(watch, 1000);

// ---- The beginning.
let start: Promise<void> = Promise.resolve();
export function begin(columns: string[], gone: typeof isGone) {
  isGone = gone;
  start = loadAll()
    .then((all) => {
      for (const one of all) {
        saved.set(one.id, one);
        for (const turn of Object.values(one.turns)) if (turn.state === "streaming") elsewhere.set(turn.id, { conversation: one.id, heard: -Infinity });
      }
      conversations.value = [...all.filter((one) => !conversationOf(one.id)), ...conversations.value];
      watch(); // asks
      setTimeout(watch, 300);
      for (const one of all.filter(({ id, pane }) => pane && !columns.includes(id))) leaveColumn(one);
    })
    .catch(failed)
    .then(() => void (loaded.value = true));
}

// A column of a comparison that no tab goes on with becomes a conversation, unless nothing was said in it.
function leaveColumn({ pane: _, ...conversation }: Conversation) {
  if (Object.keys(conversation.turns).length) put(conversation);
  else remove(conversation);
}

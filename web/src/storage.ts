// Conversations stay in this browser, in IndexedDB: one record for a conversation as a whole, its head, and one for each turn, so that tabs which write at
// once do not write over each other. Where that is not to be had they last as long as the page.
import { type Conversation, type Head, recovered, type Turn } from "./conversation";

export type StoredTurn = Turn & { conversation: string };
export interface Changes {
  heads: Head[];
  turns: StoredTurn[];
  removed: { id: string }[];
}

let database: Promise<IDBDatabase> | undefined;

function opened(): Promise<IDBDatabase> {
  return (database ??= new Promise((resolve, reject) => {
    const open = indexedDB.open("frugal", 2);
    open.onupgradeneeded = ({ oldVersion }) => {
      if (oldVersion < 1) open.result.createObjectStore("conversations", { keyPath: "id" });
      const turns = open.result.createObjectStore("turns", { keyPath: ["conversation", "id"] });
      if (oldVersion < 1) return;
      const cursor = open.transaction!.objectStore("conversations").openCursor(); // version 1 had a conversation's turns inside it
      cursor.onsuccess = () => {
        const at = cursor.result;
        if (!at) return;
        const { turns: inside, ...head }: Conversation = at.value;
        for (const turn of Object.values(inside)) turns.put({ conversation: head.id, ...turn });
        at.update(head);
        at.continue();
      };
    };
    open.onblocked = () => reject(new Error("a tab with an older version of this page is open; close it and load this one again"));
    open.onerror = () => reject(open.error);
    open.onsuccess = () => {
      open.result.onversionchange = () => open.result.close();
      resolve(open.result);
    };
  }));
}

const ended = (transaction: IDBTransaction) =>
  new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });

export async function loadAll(): Promise<Conversation[]> {
  const transaction = (await opened()).transaction(["conversations", "turns"]);
  const heads = transaction.objectStore("conversations").getAll() as IDBRequest<Head[]>;
  const all = transaction.objectStore("turns").getAll() as IDBRequest<StoredTurn[]>;
  await ended(transaction);
  const turns = new Map<string, Record<string, Turn>>(heads.result.map(({ id }) => [id, {}]));
  for (const { conversation, ...turn } of all.result) {
    if (!turns.has(conversation)) turns.set(conversation, {});
    turns.get(conversation)![turn.id] = turn;
  }
  const headed = heads.result.map((head) => ({ ...head, turns: turns.get(head.id)! }));
  const headless = [...turns.keys()].slice(heads.result.length).map((id) => recovered(id, turns.get(id)!));
  return [...headed, ...headless];
}

// All in one transaction that waits for nothing: what a page writes while it is left is kept.
export async function write({ heads, turns, removed }: Changes) {
  const transaction = (await opened()).transaction(["conversations", "turns"], "readwrite");
  const [headStore, turnStore] = [transaction.objectStore("conversations"), transaction.objectStore("turns")];
  for (const head of heads) headStore.put(head);
  for (const turn of turns) turnStore.put(turn);
  for (const { id } of removed) {
    headStore.delete(id);
    turnStore.delete(IDBKeyRange.bound([id], [id, []])); // every [id, turn]
  }
  transaction.commit();
  await ended(transaction);
}

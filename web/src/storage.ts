// Conversations stay in this browser, in IndexedDB. Where that is not to be had they last as long as the page.
import type { Conversation } from "./conversation";

const request = <T>(of: IDBRequest<T>) =>
  new Promise<T>((resolve, reject) => {
    of.onsuccess = () => resolve(of.result);
    of.onerror = () => reject(of.error);
  });

let database: Promise<IDBDatabase> | undefined;

function opened(): Promise<IDBDatabase> {
  return (database ??= new Promise((resolve, reject) => {
    const open = indexedDB.open("frugal", 1);
    open.onupgradeneeded = () => open.result.createObjectStore("conversations", { keyPath: "id" });
    open.onsuccess = () => resolve(open.result);
    open.onerror = () => reject(open.error);
  }));
}

const store = async (mode: IDBTransactionMode) => (await opened()).transaction("conversations", mode).objectStore("conversations");

export const loadAll = async (): Promise<Conversation[]> => request((await store("readonly")).getAll());
export const save = async (conversation: Conversation) => void (await request((await store("readwrite")).put(conversation)));
export const remove = async (id: string) => void (await request((await store("readwrite")).delete(id)));

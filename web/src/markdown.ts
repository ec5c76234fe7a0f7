// Text of a model as HTML. It is not trusted: its own HTML is shown as text, pictures become links, and what Markdown, highlighting and
// mathematics make of it passes a list of allowed elements. The server's Content-Security-Policy is the second wall.
import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { Marked, type TokenizerAndRendererExtension } from "marked";
import temml from "temml";
import { toClipboard } from "./clipboard";

const languages = { bash, c, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml };
for (const [name, language] of Object.entries(languages)) hljs.registerLanguage(name, language);
hljs.registerAliases(["sh", "shell", "console", "zsh"], { languageName: "bash" });

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text: string) => text.replace(/[&<>"']/g, (character) => entities[character]);

function mathematics(tex: string, display: boolean): string {
  try {
    return temml.renderToString(tex, { displayMode: display, throwOnError: true, trust: false, strict: false, maxExpand: 1000, maxSize: [20, 1000] as never });
  } catch {
    return `<code class="math-source">${escaped(tex)}</code>`;
  }
}

// $...$ and \(...\) in a line, $$...$$ and \[...\] set apart. A single dollar counts only where it cannot be a price.
const inlineMath: TokenizerAndRendererExtension = {
  name: "inlineMath",
  level: "inline",
  start: (source) => /\$|\\\(|\\\[/.exec(source)?.index,
  tokenizer(source) {
    const match =
      /^\$\$([^$]+?)\$\$/.exec(source) ??
      /^\\\[([\s\S]+?)\\\]/.exec(source) ??
      /^\\\(([\s\S]+?)\\\)/.exec(source) ??
      /^\$(?!\s)((?:\\[^\n]|[^$\\\n])+?)(?<!\s)\$(?!\d)/.exec(source);
    return match ? { type: "inlineMath", raw: match[0], tex: match[1], display: /^(\$\$|\\\[)/.test(match[0]) } : undefined;
  },
  renderer: (token) => mathematics(token.tex, token.display),
};
const blockMath: TokenizerAndRendererExtension = {
  name: "blockMath",
  level: "block",
  start: (source) => /^ {0,3}(\$\$|\\\[)/m.exec(source)?.index,
  tokenizer(source) {
    const match = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/.exec(source);
    return match ? { type: "blockMath", raw: match[0], tex: match[1] ?? match[2] } : undefined;
  },
  renderer: (token) => `<div class="math">${mathematics(token.tex, true)}</div>`,
};

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [inlineMath, blockMath],
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}" class="picture">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code({ text, lang }) {
      const name = (lang ?? "").trim().split(/\s/)[0].toLowerCase();
      const known = name && hljs.getLanguage(name);
      const body = known ? hljs.highlight(text, { language: name, ignoreIllegals: true }).value : escaped(text);
      return `<pre><code class="language-${escaped(name)}">${body}</code></pre>`;
    },
  },
});
const mathTags =
  "math maction merror mfrac mi mn mo mover mpadded mphantom mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover semantics mprescripts mmultiscripts";
const mathAttributes =
  "accent accentunder columnalign columnspacing columnlines depth display displaystyle fence form height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits rowalign rowspacing rspace scriptlevel separator stretchy symmetric voffset width xmlns";
const purify = {
  ALLOWED_TAGS: `a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre span strong table tbody td th thead tr ul ${mathTags}`.split(" "),
  ALLOWED_ATTR: `align class href start style title ${mathAttributes}`.split(" "),
  ALLOWED_URI_REGEXP: /^(?:(?:https?|mailto):|[^a-z]|[a-z+.-]+(?:[^a-z+.:-]|$))/i, // all values: an address of these kinds, or none
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true as const,
};

// Sizes of mathematics are styles; nothing else may have one, and none may reach out.
DOMPurify.addHook("uponSanitizeAttribute", (node, attribute) => {
  if (attribute.attrName === "style" && (!node.namespaceURI?.endsWith("MathML") || /[(@\\]|position|content/i.test(attribute.attrValue))) attribute.keepAttr = false;
  if (attribute.attrName === "href" && node.nodeName.toLowerCase() !== "a") attribute.keepAttr = false;
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  if (!/^(?:https?|mailto):/i.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

export function rendered(text: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parse(text, { async: false }) as string, purify);
  for (const block of fragment.querySelectorAll("pre")) addHead(block);
  for (const block of fragment.children) (block as HTMLElement).dir = "auto"; // right to left where its first letter is
  for (const table of fragment.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "table";
    frame.tabIndex = 0;
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function addHead(block: HTMLPreElement) {
  const head = document.createElement("div");
  const name = document.createElement("span");
  const copy = document.createElement("button");
  head.className = "code-head";
  name.textContent = block.firstElementChild?.className.slice("language-".length) || "text";
  copy.type = "button";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", "Copy this code");
  copy.addEventListener("click", async () => {
    copy.textContent = await toClipboard(block.textContent ?? "").then(
      () => "Copied",
      () => "Not allowed",
    );
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  head.append(name, copy);
  block.tabIndex = 0;
  const frame = document.createElement("div");
  frame.className = "code";
  block.replaceWith(frame);
  frame.append(head, block);
}

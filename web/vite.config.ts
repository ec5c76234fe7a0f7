// One page in one file: scripts and styles inside, nothing else, the same bytes from the same sources.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// The style before the script and each tag plain, as src/serve/page.cpp looks for them; then the gzip file that frugal contains.
function frugalFile(): Plugin {
  let folder = "";
  return {
    name: "frugal-file",
    apply: "build",
    configResolved(config) {
      folder = config.build.outDir;
    },
    closeBundle() {
      const path = join(folder, "index.html");
      const html = readFileSync(path, "utf8");
      const script = /<script type="module"[^>]*>([\s\S]*?)<\/script>/.exec(html);
      const style = /<style[^>]*>([\s\S]*?)<\/style>/.exec(html.replace(script?.[0] ?? "", ""));
      if (!script || !style) throw new Error("the built page has no script or no style of its own");
      const rest = html.replace(script[0], () => "").replace(style[0], () => "").replace(/\n\s*\n/g, "\n");
      const page = rest.replace("</head>", () => `<style>${style[1].trim()}</style>\n<script type="module">${script[1].trim()}</script>\n</head>`);
      writeFileSync(path, page);
      writeFileSync(`${path}.gz`, gzipSync(page, { level: 9 }));
    },
  };
}

export default defineConfig({
  plugins: [viteSingleFile({ removeViteModuleLoader: true }), frugalFile()],
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: { target: "es2022", modulePreload: false, reportCompressedSize: false },
  server: { proxy: { "/v1": "http://127.0.0.1:8080", "/props": "http://127.0.0.1:8080" } },
});

// Runs one MicroPython program in the 32-bit WebAssembly build. Standard input is JSON:
// {heap: bytes, rooms: [host directory, ...], program: text, repeat: text}. *repeat* runs again and again while it
// leaves the global `more` true: this build collects garbage only between such runs. The .py, .mpy, .json and .bin files of every room are
// copied to /lib, which is put first on sys.path. Exit code 1 when the program raises.
import fs from "node:fs";
import path from "node:path";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const { heap, rooms, program, repeat } = JSON.parse(fs.readFileSync(0, "utf8"));
const mp = await loadMicroPython({ heapsize: heap, pystack: 4096, linebuffer: true, stdout: (line) => console.log(line) });

function copy(from, to) {
  if (!mp.FS.analyzePath(to).exists) mp.FS.mkdir(to);
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const source = path.join(from, entry.name);
    if (entry.isDirectory()) copy(source, `${to}/${entry.name}`);
    else if (/\.(py|mpy|json|bin)$/.test(entry.name)) mp.FS.writeFile(`${to}/${entry.name}`, fs.readFileSync(source));
  }
}

// Microseconds of processor time so far, for benchmarks.
mp.registerJsModule("host", { cpu: () => { const used = process.cpuUsage(); return (used.user + used.system) % 1e9; } });
for (const room of rooms) copy(room, "/lib");
try {
  mp.runPython("import sys\nif '/lib' not in sys.path: sys.path.insert(0, '/lib')");
  mp.runPython(program);
  if (repeat) do mp.runPython(repeat); while (mp.globals.get("more"));
} catch (error) {
  console.error(String(error.message ?? error));
  process.exitCode = 1;
}

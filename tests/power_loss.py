"""What a disk may hold after the power fails: a traced run's calls are replayed on a model of a file system that keeps for sure only what was synced."""
import os
import random
import re
import subprocess

SECTOR = 512
CALLS = "openat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,symlink,sendfile,copy_file_range,chdir"
LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
CHANGES = {"write", "ftruncate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir", "create", "fsync", "fdatasync"}


class File:
    def __init__(self):
        self.synced, self.pending = b"", []  # then (offset, data), or (size, None) where it was cut or made longer

    @staticmethod
    def changed(content, offset, data):
        if data is None:
            return content[:offset].ljust(offset, b"\0")
        return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data):]

    def sync(self):
        self.synced = self.now()
        self.pending = []

    def now(self):
        content = self.synced
        for offset, data in self.pending:
            content = self.changed(content, offset, data)
        return content

    def after_a_crash(self, draw):
        content = self.synced
        for offset, data in self.pending:
            fate = draw.random()
            if fate < 0.3:
                continue  # dropped, though a later one may be there
            if data is not None and fate < 0.6:
                data = data[:SECTOR * draw.randrange(len(data) // SECTOR + 1)]
            content = self.changed(content, offset, data)
        return content


class Folder:
    def __init__(self):
        self.synced, self.pending = {}, []  # then lists of (name, what or None); each list happens whole or not

    def sync(self):
        self.synced = self.now()
        self.pending = []

    def now(self, count=None):
        names = dict(self.synced)
        for changes in self.pending[:count]:
            for name, what in changes:
                names.pop(name, None)
                if what is not None:
                    names[name] = what
        return names

    def after_a_crash(self, draw):
        return self.now(draw.randrange(len(self.pending) + 1))


class Disk:
    """One folder of it, empty at first, as the calls of a traced process change it."""

    def __init__(self, root):
        self.root, self.top = os.path.abspath(root), Folder()
        self.open = {}  # descriptor: [what, position or None for appending]

    def within(self, path):
        path = os.path.abspath(path)
        if path == self.root:
            return []
        return path[len(self.root) + 1:].split("/") if path.startswith(self.root + "/") else None

    def find(self, parts):
        what = self.top
        for part in parts:
            what = what.now().get(part) if isinstance(what, Folder) else None
        return what

    def apply(self, call, arguments, result):
        """True: something changed that a crash may lose, or became safe."""
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in STRING.findall(arguments)]
        paths = [self.within(os.fsdecode(text)) for text in texts] if call not in ("write", "pwrite64") else []
        handle = int(arguments.split(",")[0]) if arguments[:1].isdigit() else None
        if call == "openat":
            if paths[0] is None:
                return False
            what = self.find(paths[0])
            created = what is None
            if created:
                assert "O_CREAT" in arguments, arguments
                what = File()
                self.find(paths[0][:-1]).pending.append([(paths[0][-1], what)])
            elif "O_TRUNC" in arguments:
                what.pending.append((0, None))
            self.open[result] = [what, None if "O_APPEND" in arguments else 0]
            return created or "O_TRUNC" in arguments
        if call == "close":
            self.open.pop(handle, None)
            return False
        if handle is not None and handle not in self.open:
            return False
        if call in ("fsync", "fdatasync"):
            self.open[handle][0].sync()
        elif call == "write":
            file, position = self.open[handle]
            at = len(file.now()) if position is None else position
            file.pending.append((at, texts[0][:result]))
            if position is not None:
                self.open[handle][1] += result
        elif call == "ftruncate":
            self.open[handle][0].pending.append((int(arguments.split(",")[1]), None))
        elif call in ("rename", "renameat", "renameat2"):
            (old, new) = paths
            if old is None and new is None:
                return False
            exchange = self.find(new) if "RENAME_EXCHANGE" in arguments else None
            gone, there = (old[-1], exchange), (new[-1], self.find(old))
            if old[:-1] == new[:-1]:
                self.find(old[:-1]).pending.append([gone, there])
            else:  # each folder is synced for itself
                self.find(new[:-1]).pending.append([there])
                self.find(old[:-1]).pending.append([gone])
        elif call in ("mkdir", "unlink", "rmdir"):
            if paths[0] is None or not paths[0]:
                return False
            self.find(paths[0][:-1]).pending.append([(paths[0][-1], Folder() if call == "mkdir" else None)])
        elif call == "unlinkat":
            folder = self.open[handle][0] if handle is not None else self.find(self.within(os.fsdecode(texts[0]))[:-1])
            folder.pending.append([(os.path.basename(os.fsdecode(texts[0])), None)])
        else:
            assert call == "fcntl" and "F_DUPFD" not in arguments, (call, arguments)
            return False
        return True

    def crash(self, target, draw):
        """Writes one state that the disk may be in into `target`, which is made."""
        def write(what, path):
            if isinstance(what, File):
                path.write_bytes(what.after_a_crash(draw))
                return
            path.mkdir()
            for name, inner in what.after_a_crash(draw).items():
                write(inner, path / name)
        write(self.top, target)


def traced(command, log):
    """The calls of a run that change files, of all its threads: (name, arguments, result)."""
    subprocess.run(["strace", "-f", "-qq", "-xx", "-s", "1000000000", "-o", log, "-e", f"trace={CALLS}", *command], check=True, capture_output=True)
    calls, begun = [], {}  # begun: by thread, what another thread's call came between
    for line in log.read_text().splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith(" <unfinished ...>"):
            begun[thread] = line.removesuffix(" <unfinished ...>")
            continue
        if resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line):
            line = begun.pop(thread) + resumed[1]
        if (found := LINE.match(line)) and int(found[3]) >= 0:
            calls.append((found[1], found[2], int(found[3])))
    return calls

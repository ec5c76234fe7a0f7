"""Runs the oracles of one test binary (testing/oracle.h), each in a fork of this process, which has imported what it imports.

A line of standard input is `OUTPUT SCRIPT ARGUMENTS...`: SCRIPT, beside this file, writes its output to OUTPUT and its errors
to OUTPUT.errors. The answer is a line with its exit code.
"""
import ast
import os
import runpy
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def import_for(script):
    """What `script` imports at its top stays loaded; a failure is for the fork, which meets it again, to report."""
    imports = [node for node in ast.parse(script.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    try:
        exec(compile(ast.Module(imports, []), str(script), "exec"), {"__name__": script.stem})
    except ImportError:
        pass


def run(output, script, arguments):
    """In a fork: the exit code of the script."""
    for descriptor, path in ((1, output), (2, output + ".errors")):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is not an answer
    sys.path.insert(0, str(HERE))
    for line in sys.stdin:
        output, name, *arguments = line.split()
        import_for(HERE / name)
        child = os.fork()
        if child == 0:
            os._exit(run(output, HERE / name, arguments))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()

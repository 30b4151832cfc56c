import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "slicer_extension" / "RadFound"
ICON_PIXELS = 128


def cmake(path):
    """Return a CMakeLists.txt without comments."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(line.split("#")[0] for line in text.splitlines())


def cmake_list(text, name):
    inside = re.search(rf"set\({name}\s(.*?)\)", text, re.DOTALL).group(1)
    return [word.replace("${MODULE_NAME}", "RadFound") for word in inside.split()]


def tracked_like(pattern):
    return {
        str(path.relative_to(MODULE))
        for path in MODULE.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_cmake_lists_every_python_file():
    listed = cmake_list(cmake(MODULE / "CMakeLists.txt"), "MODULE_PYTHON_SCRIPTS")

    assert set(listed) == {"RadFound.py"} | tracked_like("RadFoundLib/**/*.py")
    assert len(listed) == len(set(listed))


def test_cmake_lists_every_resource():
    listed = cmake_list(cmake(MODULE / "CMakeLists.txt"), "MODULE_PYTHON_RESOURCES")

    assert set(listed) == tracked_like("Resources/**/*")


def test_every_icon_that_is_named_is_there():
    text = "".join(path.read_text(encoding="utf-8") for path in MODULE.rglob("*.py"))
    icons = {path.stem for path in (MODULE / "Resources" / "Icons").glob("*.svg")} - {"RadFound"}

    assert {icon for icon in icons if f'"{icon}"' not in text} == set()


def test_cmake_descends_to_the_module():
    assert "add_subdirectory(slicer_extension)" in cmake(ROOT / "CMakeLists.txt")
    assert "add_subdirectory(RadFound)" in cmake(ROOT / "slicer_extension" / "CMakeLists.txt")
    assert "add_subdirectory(Testing)" in cmake(MODULE / "CMakeLists.txt")
    assert "add_subdirectory(Python)" in cmake(MODULE / "Testing" / "CMakeLists.txt")
    tests = cmake(MODULE / "Testing" / "Python" / "CMakeLists.txt")
    for path in (MODULE / "Testing" / "Python").glob("*.py"):
        assert path.name in tests


def test_the_root_says_what_the_extension_index_asks_for():
    text = cmake(ROOT / "CMakeLists.txt")

    name = re.search(r"project\((\w+)\)", text).group(1)
    assert name == "RadFound" and not name.startswith("Slicer")
    for word in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL"):
        assert re.search(rf'set\(EXTENSION_{word} ".+"\)', text), word
    assert (ROOT / "LICENSE").is_file()


def test_the_pictures_that_the_index_shows_are_in_the_repository():
    text = cmake(ROOT / "CMakeLists.txt")
    [icon] = re.findall(r'EXTENSION_ICONURL "\S+/main/(\S+)"', text)
    urls = re.search(r'EXTENSION_SCREENSHOTURLS "(.+)"', text).group(1).split()

    from PIL import Image

    with Image.open(ROOT / icon) as picture:
        assert picture.size == (ICON_PIXELS, ICON_PIXELS)
    assert urls
    for url in urls:
        assert (ROOT / url.split("/main/")[1]).is_file(), url


def test_cmake_can_read_the_files(tmp_path):
    """With what Slicer's build brings replaced by nothing."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake: install it to have the CMake files read")
    (tmp_path / "SlicerConfig.cmake").write_text(
        f'file(WRITE "{tmp_path}/use.cmake" "")\n'
        f'set(Slicer_USE_FILE "{tmp_path}/use.cmake")\n'
        'set(Slicer_EXTENSION_GENERATE_CONFIG "${Slicer_USE_FILE}")\n'
        'set(Slicer_EXTENSION_CPACK "${Slicer_USE_FILE}")\n'
        "set(BUILD_TESTING ON)\n"
        "macro(slicerMacroBuildScriptedModule)\n"
        '  cmake_parse_arguments(M "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})\n'
        "  foreach(file IN LISTS M_SCRIPTS M_RESOURCES)\n"
        '    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")\n'
        '      message(FATAL_ERROR "${file} is missing")\n'
        "    endif()\n"
        "  endforeach()\n"
        "endmacro()\n"
        "macro(slicer_add_python_unittest)\n"
        "endmacro()\n",
        encoding="utf-8",
    )
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), f"-DSlicer_DIR={tmp_path}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if "CMAKE_C" in run.stderr and "compiler" in run.stderr.lower():
        pytest.skip("no compiler: cmake asks for one, though nothing is compiled")

    assert run.returncode == 0, run.stderr


def test_no_work_is_done_when_slicer_only_looks_at_the_module():
    tree = ast.parse((MODULE / "RadFound.py").read_text(encoding="utf-8"))
    allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)

    others = [node for node in tree.body if not isinstance(node, allowed)]

    # The docstring.
    assert len(others) == 1 and isinstance(others[0], ast.Expr)


def test_annotations_that_slicer_5_8_evaluates_run_on_its_python():
    """`X | None` in a parameter node fails on Python 3.9."""
    tree = ast.parse((MODULE / "RadFound.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(node.annotation, ast.Name), ast.unparse(node)


def test_no_file_of_the_extension_is_long():
    for path in MODULE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 500, path.name


def test_the_tutorial_has_ten_steps_and_its_pictures():
    text = (ROOT / "docs" / "slicer.md").read_text(encoding="utf-8")

    steps = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert steps == list(range(1, 11))
    pictures = re.findall(r"!\[.+?\]\((images/\S+?)\)", text)
    assert len(pictures) >= 5
    for picture in pictures:
        assert (ROOT / "docs" / picture).is_file(), picture

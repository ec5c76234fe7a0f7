# The build functions of the project. Each folder's CMakeLists.txt is its one list of sources
# (tests/structure compares it with the files on disk).
#
#   frugal_library(NAME text SRCS ... DEPS base PkgConfig::PCRE2 [TORCH])
#   frugal_test(NAME text_test SRCS ... DEPS text [TORCH])
#   frugal_fuzzer(NAME fuzz_gguf SRCS ... DEPS io)     # in fuzz/, with clang; its saved inputs: fuzz/corpus/fuzz_gguf
find_package(Threads REQUIRED)
add_library(OpenMP::OpenMP_CXX INTERFACE IMPORTED)
if(FRUGAL_STD_THREADS)
  add_compile_definitions(FRUGAL_STD_THREADS)
else()
  # The compiler's flag, not find_package's path to its libgomp: at run time the copy of the torch wheel is loaded.
  set_target_properties(OpenMP::OpenMP_CXX PROPERTIES INTERFACE_COMPILE_OPTIONS -fopenmp INTERFACE_LINK_OPTIONS -fopenmp)
endif()
find_package(PkgConfig REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The setting under which ccache takes files with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()

# Not lld: of two FDEs that begin at one address it keeps the first, and gcc makes empty ones for functions whose cold part is
# empty, so an exception that passes the other function ends the program (lld 14, gcc 12).

add_compile_options(-Wall -Wextra -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-Wno-array-bounds -Wno-restrict -Wno-stringop-overflow)  # false alarms about "text" + std::string
endif()
if(FRUGAL_SANITIZE)
  add_compile_options(-fsanitize=${FRUGAL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${FRUGAL_SANITIZE})
endif()

# For what is not hot: half the compile time. From GCC 13 on, -O2 sets two options that a precompiled header must agree in.
set(FRUGAL_QUICK_TO_COMPILE -O1)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13 AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND FRUGAL_QUICK_TO_COMPILE -munroll-only-small-loops -mvzeroupper)
endif()

# Headers that are compiled once for each kind of target: plain, test or torch. A header costs every file that loads it, needed or
# not: what its inline functions call is instantiated again each time (1 s for nlohmann's, 2 s for torch/library.h and the
# autograd headers). Hence torch's, which has 390 MB, is for the folders that see tensors, and holds no more than they all use.
function(frugal_precompiled_headers target kind)
  if(NOT TARGET frugal_pch_${kind})
    set(headers <algorithm> <functional> <map> <memory> <optional> <span> <string> <unordered_map> <vector> <fmt/format.h>)
    set(libraries fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX Threads::Threads)
    if(kind STREQUAL "torch")
      list(APPEND headers <ATen/ATen.h>)
      list(APPEND libraries FrugalTorch::torch)
    else()
      list(APPEND headers <filesystem> <nlohmann/json.hpp>)
    endif()
    if(kind STREQUAL "test")
      list(APPEND headers <gtest/gtest.h>)
      list(APPEND libraries GTest::gtest)
    endif()
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch_${kind}.cpp CONTENT "")  # written when it is not there: else all would be built again
    add_library(frugal_pch_${kind} OBJECT ${CMAKE_BINARY_DIR}/pch_${kind}.cpp)
    target_link_libraries(frugal_pch_${kind} PUBLIC ${libraries})
    target_precompile_headers(frugal_pch_${kind} PRIVATE ${headers})
    if(kind STREQUAL "torch")
      # ccache would preprocess torch's headers for each file and hash the 385 MB of the precompiled one.
      set_target_properties(frugal_pch_torch PROPERTIES CXX_COMPILER_LAUNCHER "")
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM frugal_pch_${kind})
  # An executable would get -fPIE, and the precompiled header, built with -fPIC, would not be used.
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()

# kind: as above.
function(frugal_target_defaults target kind)
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/testing)
  if(kind STREQUAL "torch")
    set_target_properties(${target} PROPERTIES CXX_COMPILER_LAUNCHER "")  # as for its precompiled header
    target_link_libraries(${target} PUBLIC FrugalTorch::torch)
  endif()
  frugal_precompiled_headers(${target} ${kind})
endfunction()

function(frugal_library)
  cmake_parse_arguments(ARG "TORCH" "NAME" "SRCS;DEPS" ${ARGN})
  add_library(${ARG_NAME} STATIC ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPS} fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX Threads::Threads)
  if(ARG_TORCH)
    frugal_target_defaults(${ARG_NAME} torch)
  else()
    frugal_target_defaults(${ARG_NAME} plain)
  endif()
endfunction()

# A text beside the folder's sources as a string constant in a header that the build makes: "<folder>/<file>.h", with other marks for its dots.
function(frugal_embed file symbol)
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  string(MAKE_C_IDENTIFIER ${file} name)
  file(READ ${file} content)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/${folder}/${name}.h @ONLY CONTENT
"// Made by CMake from src/${folder}/${file}.
#pragma once

namespace frugal::${folder} {

inline constexpr char ${symbol}[] = R\"embedded(@content@)embedded\";

}  // namespace frugal::${folder}
")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
endfunction()

function(frugal_test)
  if(NOT FRUGAL_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "TORCH" "NAME" "SRCS;DEPS" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE FRUGAL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_options(${ARG_NAME} PRIVATE ${FRUGAL_QUICK_TO_COMPILE})  # what is tested is built with the product's options
  if(ARG_TORCH)
    frugal_target_defaults(${ARG_NAME} torch)
  else()
    frugal_target_defaults(${ARG_NAME} test)
  endif()
  set_property(GLOBAL APPEND PROPERTY FRUGAL_TESTS ${ARG_NAME})
endfunction()

function(frugal_fuzzer)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS})
  target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
  frugal_target_defaults(${ARG_NAME} plain)
  set_property(GLOBAL APPEND PROPERTY FRUGAL_FUZZERS ${ARG_NAME})
endfunction()

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
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

# Not lld: of two FDEs that begin at one address it keeps the first, and gcc makes empty ones for functions whose cold part is
# empty, so an exception that passes the other function ends the program (lld 14, gcc 12).

add_compile_options(-Wall -Wextra -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-Wno-restrict -Wno-stringop-overflow)  # false alarms about "text" + std::string
endif()
if(FRUGAL_SANITIZE)
  add_compile_options(-fsanitize=${FRUGAL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${FRUGAL_SANITIZE})
endif()

# For what is not hot: half the compile time. From GCC 13 on, -O2 sets two options that a precompiled header must agree in.
set(FRUGAL_QUICK_TO_COMPILE -O1)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13 AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND FRUGAL_QUICK_TO_COMPILE -munroll-only-small-loops -mvzeroupper)
endif()

function(frugal_target_defaults target torch)
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/testing)
  if(torch)
    # ccache would preprocess torch's headers for each file and hash the 385 MB of the precompiled one.
    set_target_properties(${target} PROPERTIES CXX_COMPILER_LAUNCHER "")
    target_link_libraries(${target} PUBLIC FrugalTorch::torch)
    # One precompiled header for all torch files; building it takes 40 s and 385 MB, so it is shared.
    if(NOT TARGET frugal_torch_pch)
      file(WRITE ${CMAKE_BINARY_DIR}/torch_pch.cpp "")
      add_library(frugal_torch_pch OBJECT ${CMAKE_BINARY_DIR}/torch_pch.cpp)
      target_link_libraries(frugal_torch_pch PUBLIC FrugalTorch::torch fmt::fmt OpenMP::OpenMP_CXX nlohmann_json::nlohmann_json)
      target_precompile_headers(frugal_torch_pch PRIVATE <ATen/ATen.h> <torch/library.h> <torch/csrc/autograd/custom_function.h> <nlohmann/json.hpp> <fmt/format.h> <string> <vector> <map> <functional> <memory>)
    endif()
    target_precompile_headers(${target} REUSE_FROM frugal_torch_pch)
    # An executable would get -fPIE, and the precompiled header, built with -fPIC, would not be used.
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "EXECUTABLE")
      set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${target} PRIVATE -fPIC)
    endif()
  endif()
endfunction()

function(frugal_library)
  cmake_parse_arguments(ARG "TORCH" "NAME" "SRCS;DEPS" ${ARGN})
  add_library(${ARG_NAME} STATIC ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPS} fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX Threads::Threads)
  frugal_target_defaults(${ARG_NAME} "${ARG_TORCH}")
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
  frugal_target_defaults(${ARG_NAME} "${ARG_TORCH}")
  set_property(GLOBAL APPEND PROPERTY FRUGAL_TESTS ${ARG_NAME})
endfunction()

function(frugal_fuzzer)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS})
  target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
  frugal_target_defaults(${ARG_NAME} "")
  set_property(GLOBAL APPEND PROPERTY FRUGAL_FUZZERS ${ARG_NAME})
endfunction()

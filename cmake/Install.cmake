# What an installation holds. Included last, when all targets are known.
#
#   cmake --install   programs, library, header and datasystem.pc under a prefix
#   wheel             the same inside the package yr.datasystem (component "python")
#   editable install  nothing: the targets are built into python/yr/datasystem, so that
#                     the source tree is the package, and `ninja` alone updates it

set(PROGRAMS_OF_US)
foreach(program datasystem_worker transfer_queue_controller)
  if(TARGET ${program})
    list(APPEND PROGRAMS_OF_US ${program})
  endif()
endforeach()

# datasystem_pkg_config(file libdir): both relative to the prefix, which is found from
# where the file lies, so that an installation can be moved.
function(datasystem_pkg_config file up libdir)
  set(PC_UP ${up})
  set(PC_LIBDIR ${libdir})
  configure_file(${PROJECT_SOURCE_DIR}/cmake/datasystem.pc.in ${file} @ONLY)
endfunction()

function(datasystem_install_python)
  set(package yr/datasystem)
  install(TARGETS ${PROGRAMS_OF_US} RUNTIME DESTINATION ${package}/bin COMPONENT python)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/datasystem
    DESTINATION ${package}/include COMPONENT python)
  datasystem_pkg_config(${PROJECT_BINARY_DIR}/package.pc ../.. "")
  install(FILES ${PROJECT_BINARY_DIR}/package.pc RENAME datasystem.pc
    DESTINATION ${package}/lib/pkgconfig COMPONENT python)
endfunction()

function(datasystem_install_prefix)
  include(GNUInstallDirs)
  install(TARGETS ${PROGRAMS_OF_US} RUNTIME COMPONENT system)
  install(TARGETS datasystem_client LIBRARY COMPONENT system)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/datasystem TYPE INCLUDE
    COMPONENT system)
  file(RELATIVE_PATH up ${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/pkgconfig
    ${CMAKE_INSTALL_PREFIX})
  datasystem_pkg_config(${PROJECT_BINARY_DIR}/datasystem.pc ${up}
    /${CMAKE_INSTALL_LIBDIR})
  install(FILES ${PROJECT_BINARY_DIR}/datasystem.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT system)
endfunction()

function(datasystem_build_in_tree)
  set(package ${PROJECT_SOURCE_DIR}/python/yr/datasystem)
  set_target_properties(${PROGRAMS_OF_US} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${package}/bin)
  set_target_properties(_core datasystem_client PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${package}
    BUILD_WITH_INSTALL_RPATH ON)
endfunction()

if(SKBUILD_STATE STREQUAL "editable")
  datasystem_build_in_tree()
elseif(SKBUILD)
  datasystem_install_python()
elseif(TARGET datasystem_client)
  datasystem_install_prefix()
endif()

// A module of its own: code to be reviewed, no part of the build.
module example.com/accounts

go 1.24

module github.com/palisade-sec/palisade/deploy

go 1.26.0

// Takes the addresses out of package-lock.json: names, versions and hashes say which packages are meant.
import { readFileSync, writeFileSync } from 'node:fs'

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'))
for (const entry of Object.values(lock.packages)) delete entry.resolved
writeFileSync('package-lock.json', JSON.stringify(lock, null, 2) + '\n')
